//! The supervisor's decisions: when to start, restart, stop and kill a half. Time is an argument; the driver beside
//! it owns the processes. It judges no health but that of being alive.
use std::collections::VecDeque;
use std::time::Duration;

/// One of the node's two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    /// `dwcp-dataplane`.
    Dataplane,
    /// `dwcp-control`.
    Control,
}

impl Half {
    /// In the order of starting.
    pub(crate) const ALL: [Self; 2] = [Self::Dataplane, Self::Control];

    /// Name of the program.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Dataplane => "dwcp-dataplane",
            Self::Control => "dwcp-control",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// The half runs.
    Started(Half),
    /// The half died, or could not be started; with its exit code if it had one.
    Ended(Half, Option<i32>),
    /// Somebody wants the node to stop; said twice, at once.
    Stop,
    /// The time of [`Supervisor::poll_timeout`] has come.
    Elapsed,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Start the half.
    Start(Half),
    /// Say that the half will be started again after the pause.
    Announce(Half, Duration),
    /// Ask the half to end.
    Terminate(Half),
    /// End the half.
    Kill(Half),
    /// Nothing runs any more: leave.
    Leave(Reason),
}

/// Why the supervisor leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// As asked.
    Stopped,
    /// The half said that the configuration is wrong: starting it again would change nothing.
    Configuration(Half),
}

/// Keeps both halves alive until it is told to stop. Times are since any fixed point.
#[derive(Debug)]
pub(crate) struct Supervisor {
    dataplane: Life,
    control: Life,
    stopping: Option<Reason>,
    outputs: VecDeque<Output>,
    pauses: Pauses,
}

/// How long a half that died waits for its next start: `recovery.backoff` for so many deaths in a row as
/// `recovery.max_retries` says, then `monitoring.health_check_interval`.
#[derive(Debug, Clone)]
pub(crate) struct Pauses {
    pub(crate) first: Vec<Duration>,
    pub(crate) first_count: usize,
    pub(crate) then: Duration,
}

impl Pauses {
    /// The pause after so many earlier deaths in a row.
    fn after(&self, deaths: usize) -> Duration {
        match self.first.get(deaths).or(self.first.last()) {
            Some(pause) if deaths < self.first_count => *pause,
            _ => self.then,
        }
    }
}

#[derive(Debug, Default)]
struct Life {
    phase: Phase,
    /// Deaths in a row, each after less than [`STEADY`].
    deaths: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// Not running and not wanted.
    #[default]
    Down,
    /// To be started then.
    Waiting {
        until: Duration,
    },
    /// The driver was told to start it.
    Starting,
    Running {
        since: Duration,
    },
    /// Asked to end; killed then.
    Ending {
        until: Duration,
    },
    /// Killed.
    Killed,
}

impl Supervisor {
    /// Starts both halves.
    pub(crate) fn new(pauses: Pauses) -> Self {
        let mut supervisor = Self {
            pauses,
            dataplane: Life::default(),
            control: Life::default(),
            stopping: None,
            outputs: VecDeque::new(),
        };
        for half in Half::ALL {
            supervisor.start(half);
        }
        supervisor
    }

    /// The only mutation; drain [`Self::poll_output`] afterwards.
    pub(crate) fn handle(&mut self, now: Duration, input: Input) {
        match input {
            Input::Started(half) => {
                if self.life(half).phase == Phase::Starting {
                    self.life(half).phase = Phase::Running { since: now };
                }
            }
            Input::Ended(half, code) => self.handle_ended(now, half, code),
            Input::Stop if self.stopping.is_some() => self.kill_all(),
            Input::Stop => self.stop(Reason::Stopped),
            Input::Elapsed => self.handle_elapsed(now),
        }
        self.advance_stop(now);
    }

    /// What to do next, until `None`.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Elapsed`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let due = |life: &Life| match life.phase {
            Phase::Waiting { until } | Phase::Ending { until } => Some(until),
            Phase::Down | Phase::Starting | Phase::Running { .. } | Phase::Killed => None,
        };
        due(&self.dataplane).into_iter().chain(due(&self.control)).min()
    }

    fn handle_ended(&mut self, now: Duration, half: Half, code: Option<i32>) {
        let life = self.life(half);
        let steady = matches!(life.phase, Phase::Running { since } if now.saturating_sub(since) >= STEADY);
        life.phase = Phase::Down;
        if self.stopping.is_some() {
            return;
        }
        if code == Some(EXIT_CONFIGURATION) {
            self.stop(Reason::Configuration(half));
            return;
        }
        let life = self.life(half);
        if steady {
            life.deaths = 0;
        }
        let deaths = life.deaths;
        life.deaths = deaths.saturating_add(1);
        let pause = self.pauses.after(deaths);
        self.life(half).phase = Phase::Waiting { until: now + pause };
        self.outputs.push_back(Output::Announce(half, pause));
    }

    fn handle_elapsed(&mut self, now: Duration) {
        for half in Half::ALL {
            match self.life(half).phase {
                Phase::Waiting { until } if until <= now => self.start(half),
                Phase::Ending { until } if until <= now => self.kill(half),
                Phase::Down
                | Phase::Waiting { .. }
                | Phase::Starting
                | Phase::Running { .. }
                | Phase::Ending { .. }
                | Phase::Killed => {}
            }
        }
    }

    fn start(&mut self, half: Half) {
        self.life(half).phase = Phase::Starting;
        self.outputs.push_back(Output::Start(half));
    }

    fn stop(&mut self, reason: Reason) {
        self.stopping = Some(reason);
        for half in Half::ALL {
            if let Phase::Waiting { .. } = self.life(half).phase {
                self.life(half).phase = Phase::Down;
            }
        }
    }

    /// Control goes first: it stops giving out work and keeps what it knows; then the dataplane.
    fn advance_stop(&mut self, now: Duration) {
        let Some(reason) = self.stopping else { return };
        for half in [Half::Control, Half::Dataplane] {
            match self.life(half).phase {
                Phase::Down => {}
                Phase::Running { .. } => {
                    self.life(half).phase = Phase::Ending { until: now + STOP_MAX };
                    self.outputs.push_back(Output::Terminate(half));
                    return;
                }
                Phase::Waiting { .. } | Phase::Starting | Phase::Ending { .. } | Phase::Killed => return,
            }
        }
        self.outputs.push_back(Output::Leave(reason));
    }

    fn kill_all(&mut self) {
        for half in Half::ALL {
            if let Phase::Running { .. } | Phase::Ending { .. } = self.life(half).phase {
                self.kill(half);
            }
        }
    }

    fn kill(&mut self, half: Half) {
        self.life(half).phase = Phase::Killed;
        self.outputs.push_back(Output::Kill(half));
    }

    fn life(&mut self, half: Half) -> &mut Life {
        match half {
            Half::Dataplane => &mut self.dataplane,
            Half::Control => &mut self.control,
        }
    }
}

/// A half that lived so long was well: its next death is the first.
const STEADY: Duration = Duration::from_secs(30);
/// How long a half may take to end before it is killed.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Of the halves: the configuration is wrong (sysexits.h, EX_CONFIG).
const EXIT_CONFIGURATION: i32 = 78;

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn supervisor() -> Supervisor {
        Supervisor::new(Pauses { first: [1, 2, 4].map(seconds).to_vec(), first_count: 3, then: seconds(10) })
    }

    fn drain(supervisor: &mut Supervisor) -> Vec<Output> {
        std::iter::from_fn(|| supervisor.poll_output()).collect()
    }

    fn step(supervisor: &mut Supervisor, now: Duration, input: Input) -> Vec<Output> {
        supervisor.handle(now, input);
        drain(supervisor)
    }

    fn running() -> Supervisor {
        let mut supervisor = supervisor();
        assert_eq!(drain(&mut supervisor), [Output::Start(Half::Dataplane), Output::Start(Half::Control)]);
        for half in Half::ALL {
            assert_eq!(step(&mut supervisor, seconds(0), Input::Started(half)), []);
        }
        assert_eq!(supervisor.poll_timeout(), None);
        supervisor
    }

    /// Dies at once, again and again: gives the pauses.
    fn pauses(supervisor: &mut Supervisor, now: &mut Duration, count: usize) -> Vec<u64> {
        let mut pauses = Vec::new();
        for _ in 0..count {
            let outputs = step(supervisor, *now, Input::Ended(Half::Control, Some(1)));
            let [Output::Announce(Half::Control, pause)] = outputs[..] else { panic!("{outputs:?}") };
            assert_eq!(supervisor.poll_timeout(), Some(*now + pause));
            *now += pause;
            assert_eq!(step(supervisor, *now, Input::Elapsed), [Output::Start(Half::Control)]);
            assert_eq!(step(supervisor, *now, Input::Started(Half::Control)), []);
            pauses.push(pause.as_secs());
        }
        pauses
    }

    #[test]
    fn a_half_that_dies_is_started_again_after_longer_pauses() {
        let mut supervisor = running();
        let mut now = seconds(5);
        assert_eq!(pauses(&mut supervisor, &mut now, 5), [1, 2, 4, 10, 10]);
        now += seconds(29);
        assert_eq!(pauses(&mut supervisor, &mut now, 1), [10]);
        now += seconds(30);
        assert_eq!(pauses(&mut supervisor, &mut now, 2), [1, 2]);
    }

    #[test]
    fn a_half_that_cannot_start_waits_as_one_that_died() {
        let mut supervisor = supervisor();
        drain(&mut supervisor);
        let outputs = step(&mut supervisor, seconds(0), Input::Ended(Half::Dataplane, None));
        assert_eq!(outputs, [Output::Announce(Half::Dataplane, seconds(1))]);
        assert_eq!(step(&mut supervisor, Duration::from_millis(999), Input::Elapsed), []);
        assert_eq!(step(&mut supervisor, seconds(1), Input::Elapsed), [Output::Start(Half::Dataplane)]);
    }

    #[test]
    fn control_stops_first_and_each_in_its_time() {
        let mut supervisor = running();
        assert_eq!(step(&mut supervisor, seconds(9), Input::Stop), [Output::Terminate(Half::Control)]);
        assert_eq!(supervisor.poll_timeout(), Some(seconds(19)));
        let outputs = step(&mut supervisor, seconds(10), Input::Ended(Half::Control, Some(0)));
        assert_eq!(outputs, [Output::Terminate(Half::Dataplane)]);
        assert_eq!(step(&mut supervisor, seconds(20), Input::Elapsed), [Output::Kill(Half::Dataplane)]);
        assert_eq!(supervisor.poll_timeout(), None);
        let outputs = step(&mut supervisor, seconds(20), Input::Ended(Half::Dataplane, None));
        assert_eq!(outputs, [Output::Leave(Reason::Stopped)]);
    }

    #[test]
    fn a_second_stop_kills() {
        let mut supervisor = running();
        step(&mut supervisor, seconds(1), Input::Stop);
        let outputs = step(&mut supervisor, seconds(2), Input::Stop);
        assert_eq!(outputs, [Output::Kill(Half::Dataplane), Output::Kill(Half::Control)]);
        assert_eq!(step(&mut supervisor, seconds(2), Input::Stop), []);
        assert_eq!(step(&mut supervisor, seconds(2), Input::Ended(Half::Control, None)), []);
        let outputs = step(&mut supervisor, seconds(2), Input::Ended(Half::Dataplane, None));
        assert_eq!(outputs, [Output::Leave(Reason::Stopped)]);
    }

    #[test]
    fn a_wrong_configuration_stops_everything() {
        let mut supervisor = running();
        let outputs = step(&mut supervisor, seconds(1), Input::Ended(Half::Control, Some(78)));
        assert_eq!(outputs, [Output::Terminate(Half::Dataplane)]);
        let outputs = step(&mut supervisor, seconds(2), Input::Ended(Half::Dataplane, Some(0)));
        assert_eq!(outputs, [Output::Leave(Reason::Configuration(Half::Control))]);
    }

    #[test]
    fn stopping_while_a_half_waits_starts_nothing() {
        let mut supervisor = running();
        step(&mut supervisor, seconds(1), Input::Ended(Half::Control, Some(1)));
        assert_eq!(step(&mut supervisor, seconds(1), Input::Stop), [Output::Terminate(Half::Dataplane)]);
        assert_eq!(step(&mut supervisor, seconds(2), Input::Elapsed), []);
        let outputs = step(&mut supervisor, seconds(3), Input::Ended(Half::Dataplane, Some(0)));
        assert_eq!(outputs, [Output::Leave(Reason::Stopped)]);
    }

    #[test]
    fn stopping_while_a_half_starts_waits_for_it() {
        let mut supervisor = supervisor();
        drain(&mut supervisor);
        assert_eq!(step(&mut supervisor, seconds(0), Input::Stop), []);
        let outputs = step(&mut supervisor, seconds(0), Input::Started(Half::Control));
        assert_eq!(outputs, [Output::Terminate(Half::Control)]);
        let outputs = step(&mut supervisor, seconds(0), Input::Ended(Half::Dataplane, None));
        assert_eq!(outputs, []);
        let outputs = step(&mut supervisor, seconds(1), Input::Ended(Half::Control, Some(0)));
        assert_eq!(outputs, [Output::Leave(Reason::Stopped)]);
    }
}
