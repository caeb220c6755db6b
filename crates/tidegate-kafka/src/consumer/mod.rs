//! Reading topics: fetching records, alone or as a member of a group.
