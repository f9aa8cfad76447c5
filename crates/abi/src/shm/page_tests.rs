//! Tests of the page of figures: behaviour, hostile memory, and every interleaving of its writer and a reader.
#[cfg(loom)]
mod interleavings {
    use super::super::*;
    use crate::shm::atomic::AtomicU64;
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Clone)]
    struct Shared(Arc<Vec<AtomicU64>>);

    impl Memory for Shared {
        fn words(&self) -> &[AtomicU64] {
            &self.0
        }
    }

    #[test]
    fn a_reader_never_sees_half_a_publication() {
        loom::model(|| {
            let shared = Shared(Arc::new((0..HEADER_WORDS + 2).map(|_| AtomicU64::new(0)).collect()));
            let reader = PageReader::attach(shared.clone());
            let mut writer = PageWriter::attach(shared);
            let writer = thread::spawn(move || {
                writer.publish(&[1, 1]);
                writer.publish(&[2, 2]);
            });
            let mut values = [9; 2];
            if reader.read(&mut values).is_ok() {
                assert_eq!(values[0], values[1]);
            }
            writer.join().unwrap();
            reader.read(&mut values).unwrap();
            assert_eq!(values, [2, 2]);
        });
    }
}

#[cfg(not(loom))]
mod behaviour {
    use super::super::*;
    use crate::shm::atomic::AtomicU64;
    use std::vec::Vec;

    fn memory(values: usize) -> Vec<AtomicU64> {
        (0..HEADER_WORDS + values).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn a_page_that_is_never_consistent_is_an_error_and_a_new_writer_repairs_it() {
        let words = memory(2);
        let mut values = [0; 2];
        words[SEQUENCE].store(41, Ordering::Relaxed);
        assert_eq!(PageReader::attach(&words[..]).read(&mut values), Err(PageError::Torn));
        PageWriter::attach(&words[..]).publish(&[3, 4]);
        PageReader::attach(&words[..]).read(&mut values).unwrap();
        assert_eq!(values, [3, 4]);
    }

    #[test]
    fn a_page_that_is_too_small_is_an_error() {
        let words = memory(1);
        let short = PageError::Shape { words: 9 };
        assert_eq!(PageReader::attach(&words[..]).read(&mut [0; 2]), Err(short));
        assert_eq!(PageReader::attach(&words[..3]).read(&mut []), Err(PageError::Shape { words: 3 }));
        PageWriter::attach(&words[..]).publish(&[1, 2, 3]);
        PageWriter::attach(&words[..0]).publish(&[1, 2, 3]);
    }
}
