//! What must hold at the end of a run.
use std::fmt::Write;

use dwcp_abi::link::{Counts, Outcome};

use super::world::World;

/// Tasks that an engine may have at most in a run of this size.
pub(super) const TASKS_MAX: usize = 4000;

impl World {
    pub(super) fn jobs_are_over(&self) -> bool {
        self.jobs.iter().all(|job| job.end.is_some()) && !self.faults_on()
    }

    pub(super) fn engines_are_quiet(&self) -> bool {
        let honest = (0..self.nodes.len()).filter(|&node| !self.is_hostile(node));
        honest.into_iter().all(|node| {
            let node = &self.nodes[node];
            node.up && node.workers.iter().all(|worker| worker.engine.jobs() == 0)
        })
    }

    /// For a person: which jobs are not over, and what the engines hold.
    pub(super) fn open_jobs(&self) -> String {
        let mut text = format!("at {} ms; ", self.now / 1_000_000);
        for (index, job) in self.jobs.iter().enumerate().filter(|(_, job)| job.end.is_none()) {
            let (id, attempt, fetch) = (job.id, job.attempt, job.is_fetch);
            let _ = write!(
                text,
                "job {index} id {id} owner {} peer {} attempt {attempt} fetch {fetch}; ",
                job.owner, job.peer
            );
        }
        for (node, state) in self.nodes.iter().enumerate() {
            for (worker, state) in state.workers.iter().enumerate() {
                let engine = &state.engine;
                let lanes = state.lanes.iter().flatten().count();
                let (jobs, tasks, free) = (engine.jobs(), engine.tasks(), engine.buffers_free());
                let _ =
                    write!(text, "{node}.{worker}: {jobs} jobs {tasks} tasks {free:?} free {lanes} lanes; ");
            }
        }
        if std::env::var_os("DWCP_SIM_DUMP").is_some() {
            for worker in self.nodes.iter().flat_map(|node| &node.workers) {
                let _ = writeln!(text, "\n{:#?}", worker.engine);
            }
        }
        text
    }

    /// Lanes are not needed any more.
    pub(super) fn stop_wanting(&mut self) {
        for node in &mut self.nodes {
            node.wants.clear();
        }
        self.scenario.lanes_max = 0;
    }

    pub(super) fn check_leaks(&self) {
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| !self.is_hostile(*index)) {
            for (number, worker) in node.workers.iter().enumerate() {
                let buffers = self.scenario.buffers as usize;
                let free = worker.engine.buffers_free();
                assert_eq!(free, (buffers, buffers), "worker {index}.{number} has lost buffers");
                assert!(worker.busy.is_empty(), "worker {index}.{number} has operations under way");
                assert!(worker.engine.is_idle(), "worker {index}.{number} is not idle: {:#?}", worker.engine);
            }
            assert!(node.packs.is_empty(), "node {index} keeps packs");
            assert!(node.files.is_empty(), "node {index} keeps files open: {:?}", node.files.keys());
            assert!(node.scanners.is_empty(), "node {index} keeps scanners");
            assert!(node.trees.is_empty(), "node {index} keeps trees");
            for (job, entry) in node.leftovers.keys() {
                let end = &self.jobs[*job].end;
                let over = matches!(end, Some((Outcome::Done | Outcome::Partial, _, _)));
                assert!(!over, "node {index} keeps a part of entry {entry} of job {job}, which has arrived");
            }
        }
    }

    /// Checks what every job came to, and says how many are done.
    pub(super) fn check_jobs(&self) -> usize {
        let mut done = 0;
        for index in 0..self.jobs.len() {
            let job = &self.jobs[index];
            if self.is_hostile(job.peer) {
                continue;
            }
            let Some((outcome, counts, text)) = &job.end else { panic!("job {index} did not end") };
            match outcome {
                Outcome::Done => {
                    self.check_done(index, counts);
                    done += 1;
                }
                Outcome::Partial => {
                    assert!(!text.is_empty(), "job {index} is partial without a word");
                    assert!(counts.failures > 0, "job {index} is partial without failures");
                    let sound = job.entries.iter().all(super::source::Entry::is_sound);
                    assert!(
                        !sound || job.scan_failures > 0,
                        "job {index} is partial without a reason: {text}"
                    );
                    self.check_partial(index);
                }
                Outcome::Failed => {
                    assert!(!text.is_empty(), "job {index} failed without a word");
                    assert!(self.scenario.disk_full, "job {index} failed without a reason: {text}");
                }
                Outcome::Cancelled => assert!(job.cancelled, "job {index} was cancelled by nobody"),
                Outcome::Interrupted => assert!(job.cancelled, "job {index} was not tried again"),
            }
        }
        done
    }

    fn check_done(&self, index: usize, counts: &Counts) {
        let job = &self.jobs[index];
        assert_eq!(job.scan_failures, 0, "job {index} is done although entries could not be read");
        let mut bytes = 0;
        for (number, entry) in job.entries.iter().enumerate() {
            bytes += entry.size();
            let visible = self.nodes[job.to()].visible.get(&(index, number));
            let Some(visible) = visible else { panic!("job {index} is done without entry {number}") };
            assert!(entry.can_be(visible), "job {index} is done with other bytes in entry {number}");
        }
        assert_eq!(counts.failures, 0, "job {index} is done with failures");
        assert_eq!(counts.bytes_total, bytes, "job {index} counts other bytes");
        assert_eq!(counts.bytes_done, bytes, "job {index} is done with bytes to do");
        let entries = job.entries.len() as u64;
        assert_eq!(
            (counts.entries_done, counts.entries_total),
            (entries, entries),
            "job {index} counts entries"
        );
    }

    /// What has no trouble arrives although other things do not.
    fn check_partial(&self, index: usize) {
        let job = &self.jobs[index];
        for (number, _) in job.entries.iter().enumerate().filter(|(_, entry)| entry.is_sound()) {
            let visible = self.nodes[job.to()].visible.contains_key(&(index, number));
            assert!(visible, "job {index} misses entry {number}, which nothing was wrong with");
        }
    }
}
