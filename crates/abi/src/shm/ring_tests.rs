//! Tests of the ring: behaviour, a model, hostile memory, and every interleaving of a producer and a consumer
//! (`RUSTFLAGS="--cfg loom" cargo test -p dwcp-abi --lib --release`).
#[cfg(loom)]
mod interleavings {
    use super::super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Clone)]
    struct Shared(Arc<Vec<AtomicU64>>);

    impl Shared {
        fn new(slots: usize) -> Self {
            Self(Arc::new((0..HEADER_WORDS + slots).map(|_| AtomicU64::new(0)).collect()))
        }
    }

    impl Memory for Shared {
        fn words(&self) -> &[AtomicU64] {
            &self.0
        }
    }

    /// Two slots hold one record: the second push must wait for the first pop, and reuses its words. A weaker order of
    /// `head` would pass: loom cannot move the consumer's loads behind its later store. The rest fails if weakened.
    #[test]
    fn records_arrive_whole_and_in_order() {
        loom::model(|| {
            let shared = Shared::new(2);
            // Attached before the thread starts: loom looks back at the last access of a word only, and a load by the
            // producer itself would hide the consumer's from it.
            let mut producer = Producer::attach(shared.clone()).unwrap();
            let mut consumer = Consumer::attach(shared).unwrap();
            let producer = thread::spawn(move || {
                producer.push(&[1; 8]).unwrap();
                producer.push(&[2; 8]).is_ok()
            });
            let mut buffer = [0; 8];
            let mut received = vec![];
            for _ in 0..2 {
                if let Some(length) = consumer.pop(&mut buffer).unwrap() {
                    received.push(buffer[..length].to_vec());
                }
            }
            let both = producer.join().unwrap();
            while let Some(length) = consumer.pop(&mut buffer).unwrap() {
                received.push(buffer[..length].to_vec());
            }
            let expected: Vec<Vec<u8>> = if both { vec![vec![1; 8], vec![2; 8]] } else { vec![vec![1; 8]] };
            assert_eq!(received, expected);
        });
    }

    /// Either the consumer sees the record before it sleeps, or the producer is told to ring.
    #[test]
    fn no_wake_up_is_lost() {
        loom::model(|| {
            let shared = Shared::new(4);
            let mut producer = Producer::attach(shared.clone()).unwrap();
            let consumer = Consumer::attach(shared).unwrap();
            let producer = thread::spawn(move || producer.push(&[7]).unwrap());
            let sleeps = consumer.prepare_sleep();
            let rings = producer.join().unwrap();
            assert!(!sleeps || rings);
        });
    }
}

#[cfg(not(loom))]
mod behaviour {
    use super::super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::vec::Vec;

    fn memory(slots: usize) -> Vec<AtomicU64> {
        (0..HEADER_WORDS + slots).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn only_a_power_of_two_of_slots_is_a_ring() {
        for slots in [0, 1, 3, 12] {
            let words = memory(slots);
            let shape = RingError::Shape { words: words.len() };
            assert_eq!(Producer::attach(&words[..]).unwrap_err(), shape);
            assert_eq!(Consumer::attach(&words[..]).unwrap_err(), shape);
        }
        assert_eq!(Producer::attach(&memory(0)[..9]).unwrap_err(), RingError::Shape { words: 9 });
    }

    #[test]
    fn a_full_ring_refuses_and_goes_on_after_a_pop() {
        let words = memory(8);
        let mut producer = Producer::attach(&words[..]).unwrap();
        let mut consumer = Consumer::attach(&words[..]).unwrap();
        assert_eq!(producer.push(&[0; 57]), Err(PushError::TooLarge { max: 56 }));
        producer.push(&[1; 24]).unwrap();
        producer.push(&[2; 17]).unwrap();
        assert_eq!(producer.push(&[]), Err(PushError::Full));
        let mut buffer = [0; 56];
        assert_eq!(consumer.pop(&mut [0; 23]), Err(RingError::NoRoom { length: 24 }));
        assert_eq!(consumer.pop(&mut buffer), Ok(Some(24)));
        producer.push(&[]).unwrap();
        assert_eq!(consumer.pop(&mut buffer), Ok(Some(17)));
        assert_eq!(buffer[..17], [2; 17]);
        assert_eq!(consumer.pop(&mut buffer), Ok(Some(0)));
        assert_eq!(consumer.pop(&mut buffer), Ok(None));
    }

    #[test]
    fn the_largest_record_fits_both_real_rings() {
        let words = memory(COMMAND_SLOTS);
        let mut producer = Producer::attach(&words[..]).unwrap();
        let mut consumer = Consumer::attach(&words[..]).unwrap();
        let record = [0xa5; RECORD_BYTES_MAX];
        let mut buffer = [0; RECORD_BYTES_MAX];
        for _ in 0..20 {
            producer.push(&record).unwrap();
            assert_eq!(consumer.pop(&mut buffer), Ok(Some(RECORD_BYTES_MAX)));
            assert_eq!(buffer, record);
        }
        let too_large = PushError::TooLarge { max: RECORD_BYTES_MAX };
        assert_eq!(producer.push(&[0; RECORD_BYTES_MAX + 1]), Err(too_large));
    }

    #[test]
    fn a_sleeping_consumer_asks_for_the_doorbell_until_it_wakes() {
        let words = memory(16);
        let mut producer = Producer::attach(&words[..]).unwrap();
        let mut consumer = Consumer::attach(&words[..]).unwrap();
        assert_eq!(producer.push(b"a"), Ok(false));
        assert!(!consumer.prepare_sleep());
        consumer.pop(&mut [0; 8]).unwrap();
        assert!(consumer.prepare_sleep());
        assert_eq!(producer.push(b"b"), Ok(true));
        assert_eq!(producer.push(b"c"), Ok(true));
        consumer.wake();
        assert_eq!(producer.push(b"d"), Ok(false));
        assert!(!consumer.is_empty());
    }

    #[test]
    fn ends_that_restart_go_on_where_their_predecessors_were() {
        let words = memory(8);
        let mut buffer = [0; 56];
        for round in 0..50_u8 {
            Producer::attach(&words[..]).unwrap().push(&[round; 9]).unwrap();
            let mut consumer = Consumer::attach(&words[..]).unwrap();
            assert_eq!(consumer.pop(&mut buffer), Ok(Some(9)));
            assert_eq!(buffer[..9], [round; 9]);
        }
    }

    #[test]
    fn impossible_indices_are_refused_and_started_over() {
        for (tail, head) in [(3, 0), (0, 8), (72, 0), (8, 4), (u64::MAX, 0), (0, u64::MAX)] {
            let words = memory(8);
            words[TAIL].store(tail, Ordering::Relaxed);
            words[HEAD].store(head, Ordering::Relaxed);
            assert!(matches!(Producer::attach(&words[..]), Err(RingError::Corrupt { .. })));
            assert!(matches!(Consumer::attach(&words[..]), Err(RingError::Corrupt { .. })));
            let mut consumer = Consumer::start_over(&words[..]).unwrap();
            let mut producer = Producer::start_over(&words[..]).unwrap();
            producer.push(b"again").unwrap();
            assert_eq!(consumer.pop(&mut [0; 8]), Ok(Some(5)));
        }
    }

    #[test]
    fn a_misled_pair_finds_together_again() {
        let words = memory(8);
        let mut producer = Producer::attach(&words[..]).unwrap();
        let mut consumer = Consumer::attach(&words[..]).unwrap();
        words[TAIL].store(1 << 40, Ordering::Relaxed);
        assert!(matches!(consumer.pop(&mut [0; 56]), Err(RingError::Corrupt { what: "tail", .. })));
        consumer.reset();
        assert_eq!(producer.push(b"x"), Err(PushError::Corrupt { head: 1 << 40 }));
        assert!(matches!(consumer.pop(&mut [0; 56]), Err(RingError::Corrupt { .. })));
        consumer.reset();
        producer.push(b"x").unwrap();
        assert_eq!(consumer.pop(&mut [0; 56]), Ok(Some(1)));
    }

    #[test]
    fn a_stale_or_oversized_record_is_corrupt() {
        let words = memory(8);
        let mut producer = Producer::attach(&words[..]).unwrap();
        let mut consumer = Consumer::attach(&words[..]).unwrap();
        producer.push(b"12345678").unwrap();
        let header = words[HEADER_WORDS].load(Ordering::Relaxed);
        words[HEADER_WORDS].store(header | 1 << 40, Ordering::Relaxed);
        assert!(matches!(consumer.pop(&mut [0; 56]), Err(RingError::Corrupt { what: "stamp", .. })));
        for length in [9, 57, u64::from(u32::MAX)] {
            words[HEADER_WORDS].store(length, Ordering::Relaxed);
            assert!(matches!(consumer.pop(&mut [0; 56]), Err(RingError::Corrupt { what: "length", .. })));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(Vec<u8>),
        Pop,
        RestartProducer,
        RestartConsumer,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..140).prop_map(Step::Push),
            4 => Just(Step::Pop),
            1 => Just(Step::RestartProducer),
            1 => Just(Step::RestartConsumer),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_queue(steps in prop::collection::vec(step(), 1..200)) {
            let words = memory(16);
            let mut producer = Producer::attach(&words[..]).unwrap();
            let mut consumer = Consumer::attach(&words[..]).unwrap();
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            let mut buffer = [0; 128];
            for step in steps {
                match step {
                    Step::Push(record) => {
                        let used: u64 = model.iter().map(|record| stride(record.len())).sum();
                        let expected = match record.len() {
                            121.. => Err(PushError::TooLarge { max: 120 }),
                            length if used + stride(length) > 128 => Err(PushError::Full),
                            _ => Ok(false),
                        };
                        prop_assert_eq!(producer.push(&record), expected);
                        if expected.is_ok() {
                            model.push_back(record);
                        }
                    }
                    Step::Pop => {
                        let popped = consumer.pop(&mut buffer).unwrap().map(|length| buffer[..length].to_vec());
                        prop_assert_eq!(popped, model.pop_front());
                    }
                    Step::RestartProducer => producer = Producer::attach(&words[..]).unwrap(),
                    Step::RestartConsumer => consumer = Consumer::attach(&words[..]).unwrap(),
                }
            }
        }

        /// Whatever is written over the memory between calls: no panic, no record above the limit, and after resets
        /// the two ends understand each other again.
        #[test]
        fn survives_any_corruption(
            damage in prop::collection::vec((0..HEADER_WORDS + 16, any::<u64>(), any::<bool>()), 1..60),
        ) {
            let words = memory(16);
            let mut producer = Producer::attach(&words[..]).unwrap();
            let mut consumer = Consumer::attach(&words[..]).unwrap();
            let mut buffer = [0; RECORD_BYTES_MAX];
            for (index, value, whole) in damage {
                let value = if whole { value } else { value % 256 };
                let _whether_it_fits_is_not_the_question = producer.push(b"some record");
                words[index].store(value, Ordering::Relaxed);
                match consumer.pop(&mut buffer) {
                    Ok(length) => prop_assert!(length.unwrap_or(0) <= 120),
                    Err(RingError::Corrupt { .. }) => consumer.reset(),
                    Err(other) => prop_assert!(false, "{}", other),
                }
            }
            for _ in 0..3 {
                let _told_to_reset = producer.push(b"again");
                consumer.reset();
            }
            producer.push(b"again").unwrap();
            prop_assert_eq!(consumer.pop(&mut buffer), Ok(Some(5)));
        }
    }

    const COMMAND_SLOTS: usize = 128 * 1024 / 8;
}
