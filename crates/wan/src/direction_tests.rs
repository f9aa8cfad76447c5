//! A link in virtual time: what arrives, when, in which order, for links of every kind.
use super::*;

/// A super-packet of full segments, as TCP makes them at an MTU of 1500.
fn packet(segments: u16) -> Shape {
    Shape::new(52, 1_448, 1_448 * usize::from(segments))
}

fn direction(text: &str) -> Direction {
    Direction::new(text.parse().unwrap(), 20_000_000, 42)
}

/// Everything that leaves: time, packet, segment.
fn drain(direction: &mut Direction) -> Vec<(u64, PacketId, u16)> {
    let mut all = Vec::new();
    while let Some(due_ns) = direction.poll_timeout() {
        while let Some(departure) = direction.poll_departure(due_ns) {
            let segments = departure.first..departure.first + departure.count;
            all.extend(segments.map(|segment| (due_ns, departure.packet, segment)));
        }
    }
    all
}

/// Which of so many segments arrive, sent in packets of that many.
fn arrivals(text: &str, segments: u64, per_packet: u16) -> Vec<u64> {
    let mut direction = direction(text);
    for id in 0..segments / u64::from(per_packet) {
        direction.handle_packet(id * 1_000_000, id, &packet(per_packet));
    }
    drain(&mut direction)
        .iter()
        .map(|(_, id, segment)| id * u64::from(per_packet) + u64::from(*segment))
        .collect()
}

#[test]
fn a_segment_takes_its_time() {
    let mut direction = direction("rate=1gbit,delay=10ms");
    assert_eq!(direction.handle_packet(5_000, 0, &packet(1)), 1);
    assert_eq!(direction.poll_timeout(), Some(5_000 + 12_000 + 10_000_000));
    assert_eq!(direction.poll_departure(10_016_999), None);
    assert_eq!(direction.poll_departure(10_017_000), Some(Departure { packet: 0, first: 0, count: 1 }));
    assert_eq!((direction.poll_departure(u64::MAX), direction.poll_timeout()), (None, None));
}

#[test]
fn a_super_packet_is_spread_over_the_bottlenecks_clock() {
    let mut direction = direction("rate=100mbit,delay=1ms");
    direction.handle_packet(0, 0, &packet(40));
    let left = drain(&mut direction);
    let times: Vec<u64> = left.iter().map(|(due_ns, ..)| *due_ns).collect();
    let expected: Vec<u64> = (1..=40).map(|count| 1_000_000 + count * 120_000).collect();
    assert_eq!(times, expected);
    assert_eq!(direction.counters().queue.max_ns(), 39 * 120_000);
}

#[test]
fn what_is_due_together_leaves_together() {
    let mut direction = direction("rate=100mbit,delay=1ms");
    direction.handle_packet(0, 7, &packet(10));
    direction.handle_packet(0, 8, &packet(2));
    let run = |first, count| Some(Departure { packet: 7, first, count });
    assert_eq!(direction.poll_departure(1_000_000 + 4 * 120_000), run(0, 4));
    assert_eq!(direction.poll_departure(1_000_000 + 4 * 120_000), None);
    assert_eq!(direction.poll_departure(100_000_000), run(4, 6));
    assert_eq!(direction.poll_departure(100_000_000), Some(Departure { packet: 8, first: 0, count: 2 }));
}

#[test]
fn the_rate_is_kept_to_the_segment() {
    let mut direction = direction("rate=50mbit,delay=1ms,buffer=64kib");
    // Twice as much as fits, for ten seconds.
    for id in 0..10_000_u64 {
        direction.handle_packet(id * 1_000_000, id, &packet(8));
    }
    let last = drain(&mut direction).last().unwrap().0;
    let counters = direction.counters();
    let rate = counters.delivered_bytes as f64 * 8.0 / ((last - 1_000_000) as f64 / 1e9);
    assert!((rate / 50e6 - 1.0).abs() < 1e-3, "{rate}");
    assert_eq!(counters.delivered + counters.dropped, 80_000);
    // The buffer's 64 KiB are 10.5 ms of the link.
    assert!((10_000_000..10_500_000).contains(&counters.queue.max_ns()), "{:?}", counters.queue.max_ns());
}

#[test]
fn the_same_segments_are_lost_however_they_are_packed() {
    for text in ["loss=2%", "loss=0.5%x7", "loss=1%/20%/0.1%/60%"] {
        let alone = arrivals(text, 40_000, 1);
        assert!(alone.len() < 39_600 && alone.len() > 36_000, "{text}: {}", alone.len());
        assert_eq!(alone, arrivals(text, 40_000, 10), "{text}");
        assert_eq!(alone, arrivals(text, 40_000, 40), "{text}");
    }
}

#[test]
fn lost_segments_use_the_bottleneck() {
    let mut direction = direction("rate=100mbit,delay=1ms,loss=50%,buffer=100bdp");
    for id in 0..100 {
        direction.handle_packet(0, id, &packet(10));
    }
    assert_eq!(direction.counters().queue.max_ns(), 999 * 120_000);
    let counters = direction.counters().clone();
    assert_eq!(counters.lost + drain(&mut direction).len() as u64, 1_000);
}

#[test]
fn an_outage_takes_everything_and_no_more() {
    let mut direction = direction("delay=1ms,outage=10ms+5ms");
    for ms in 0..20_u64 {
        direction.handle_packet(ms * 1_000_000, ms, &packet(1));
    }
    let arrived: Vec<u64> = drain(&mut direction).iter().map(|(_, id, _)| *id).collect();
    assert_eq!(arrived, (0..10).chain(15..20).collect::<Vec<u64>>());
    assert_eq!(direction.counters().outage, 5);
}

#[test]
fn held_back_segments_are_overtaken() {
    let mut direction = direction("rate=1gbit,delay=10ms,reorder=5%@3ms");
    for id in 0..1_000_u64 {
        direction.handle_packet(id * 100_000, id, &packet(4));
    }
    let left = drain(&mut direction);
    assert!(left.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    let order: Vec<(u64, u16)> = left.iter().map(|(_, id, segment)| (*id, *segment)).collect();
    let overtaken = order.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64;
    let held = direction.counters().reordered;
    assert!((120..280).contains(&held) && overtaken > held / 2, "{held} {overtaken}");
    let mut sorted = order;
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), 4_000);
}

#[test]
fn copies_arrive_once_more() {
    let mut direction = direction("delay=1ms,duplicate=10%");
    let scheduled: u32 = (0..1_000).map(|id| direction.handle_packet(0, id, &packet(3))).sum();
    let left = drain(&mut direction);
    let copies = direction.counters().duplicated;
    assert_eq!((left.len() as u64, u64::from(scheduled)), (3_000 + copies, 3_000 + copies));
    assert!((240..360).contains(&copies), "{copies}");
}

#[test]
fn jitter_swings_within_its_bounds_and_overtakes_nothing() {
    let mut direction = direction("delay=10ms,jitter=4ms");
    for id in 0..20_000_u64 {
        direction.handle_packet(id * 500_000, id, &packet(1));
    }
    let left = drain(&mut direction);
    let delays: Vec<u64> = left.iter().map(|(due_ns, id, _)| due_ns - id * 500_000).collect();
    assert!(delays.iter().all(|delay| (10_000_000..=14_000_000).contains(delay)));
    assert!(left.windows(2).all(|pair| pair[0].1 < pair[1].1));
    let (low, high) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(high - low > 3_500_000, "{low} {high}");
}
