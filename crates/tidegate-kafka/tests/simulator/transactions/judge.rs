//! The judgement on a schedule that has ended.

use super::log::Content;
use super::world::World;

impl World {
    /// What is wrong, if anything.
    pub(super) fn judge(&mut self) -> Option<String> {
        if let Some(why) = self.broken.take() {
            return Some(why);
        }
        let done = self.position();
        for slot in 0..self.logs.len() {
            let found: Vec<Content> = self.logs[slot].committed(false);
            let found: Vec<Content> = found
                .into_iter()
                .filter(|content| *content != Content::Foreign)
                .collect();
            let expected = self.expected(slot, done);
            if found != expected {
                return Some(format!(
                    "partition {slot}: committed {found:?} instead of {expected:?}"
                ));
            }
        }
        if self.reported > done {
            let reported = self.reported;
            return Some(format!("{reported} steps were reported, {done} are done"));
        }
        let steps = self.steps();
        if done < steps && !self.gave_up {
            return Some(format!("{done} of {steps} steps are done at {}", self.now));
        }
        None
    }

    /// What the first steps leave in a partition.
    fn expected(&self, slot: usize, steps: u32) -> Vec<Content> {
        if slot == self.logs.len() - 1 {
            return (1..=steps)
                .map(|next_step| Content::Position { next_step })
                .collect();
        }
        let mut expected = Vec::new();
        for (step, rows) in (0..).zip(self.plan.iter().take(steps as usize)) {
            for (index, row) in (0..).zip(rows) {
                if row.0 as usize == slot {
                    expected.push(Content::Row { step, index });
                }
            }
        }
        expected
    }
}
