//! What the fuzzers check, without the fuzzer: it compiles wherever the rest does, and its test runs the corpus again.
//!
//! libFuzzer wants a C++ compiler and a nightly toolchain. So it is a feature, and only the targets in `fuzz_targets` use it.

pub mod encoder;
pub mod inference;
pub mod reader;
pub mod time;

use arbitrary::{Arbitrary, Unstructured};

/// What bytes of a fuzzer stand for, as `fuzz_target!` would give it; `None` where they are too few.
fn given<'a, T: Arbitrary<'a>>(data: &'a [u8]) -> Option<T> {
    let (least, _) = T::size_hint(0);
    if data.len() < least {
        return None;
    }
    T::arbitrary_take_rest(Unstructured::new(data)).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every input that a fuzzer once found worth keeping.
    #[test]
    fn the_corpus_has_no_findings() {
        let targets: [(&str, fn(&[u8])); 4] = [
            ("encoder", super::encoder::check),
            ("inference", super::inference::check),
            ("reader", super::reader::check),
            ("time", super::time::check),
        ];
        for (target, check) in targets {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("corpus")
                .join(target);
            let mut inputs = 0;
            for file in std::fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                println!("{}", path.display());
                check(&std::fs::read(path).unwrap());
                inputs += 1;
            }
            assert!(inputs > 0, "the corpus of {target} is empty");
        }
    }
}
