//! `dwcp tune`: what of this host could serve the node better, done and taken back. [`plan`] decides, [`carry`] acts,
//! [`saved`] keeps what was replaced. Nothing here outlives a reboot: what has to is in the packages' sysctl file.
mod carry;
mod facts;
mod plan;
mod saved;
mod tools;

use std::path::Path;

use serde::Serialize;

use crate::arguments::Tune;
use crate::configuration;
use crate::context::Context;
use crate::exit::{Code, Failure};
use crate::output::{self, plain};
use crate::table::{Side, Table};
use facts::Facts;
pub(crate) use plan::Kind;
use plan::{Plan, Step};
use saved::Store;

/// Shows, applies or reverts.
pub(crate) fn run(context: &Context, arguments: &Tune) -> Result<Code, Failure> {
    let root = Path::new("/");
    let store = Store::new(&arguments.state_dir, root);
    if (arguments.apply || arguments.revert) && !nix::unistd::geteuid().is_root() {
        let way = "sudo dwcp tune --apply; `dwcp tune --plan` needs no rights";
        return Err(Failure::new(Code::Permission, "only root may tune the host").with_hint(way));
    }
    let outcome = if arguments.revert {
        revert(root, &store)?
    } else {
        let config = configuration::require(arguments.config.as_deref())?.config;
        let facts = Facts::read(root, &arguments.interface);
        let plan = plan::plan(&facts, &config, &arguments.only);
        if arguments.apply { apply(root, &store, plan)? } else { Outcome::of(plan) }
    };
    if context.json {
        output::json(&outcome)?;
    } else {
        output::result(&render(&outcome))?;
    }
    let is_whole = outcome.steps.iter().all(|done| done.trouble.is_none());
    Ok(if is_whole { Code::Ok } else { Code::General })
}

/// Answer of `tune --json`.
#[derive(Debug, Serialize)]
struct Outcome {
    schema: &'static str,
    done: &'static str,
    steps: Vec<Done>,
    notes: Vec<String>,
}

/// A step, and what kept it from being carried out.
#[derive(Debug, Serialize)]
struct Done {
    #[serde(flatten)]
    step: Step,
    trouble: Option<String>,
}

impl Outcome {
    fn of(plan: Plan) -> Self {
        let steps = plan.steps.into_iter().map(|step| Done { step, trouble: None }).collect();
        Self { schema: "dwcp.tune/1", done: "planned", steps, notes: plan.notes }
    }
}

/// Keeps each value before it is replaced. What is refused is said, and the rest is done.
fn apply(root: &Path, store: &Store, plan: Plan) -> Result<Outcome, Failure> {
    let mut saved = store.load()?;
    let mut outcome = Outcome { done: "applied", ..Outcome::of(Plan { steps: Vec::new(), ..plan.clone() }) };
    for step in plan.steps {
        let before = saved.clone();
        match saved.steps.iter_mut().find(|kept| kept.change == step.change) {
            // What was there first is what is put back, however often this is called.
            Some(kept) => kept.wanted.clone_from(&step.wanted),
            None => saved.steps.push(step.clone()),
        }
        store.keep(&saved)?;
        let trouble = carry::apply(root, &step).err();
        if trouble.is_some() && carry::now(root, &step).is_none_or(|now| now == step.current) {
            saved = before;
            store.keep(&saved)?;
        }
        outcome.steps.push(Done { step, trouble });
    }
    Ok(outcome)
}

/// Puts back what was replaced, the last first. What somebody changed since is left alone, and said.
fn revert(root: &Path, store: &Store) -> Result<Outcome, Failure> {
    let mut saved = store.load()?;
    let mut outcome = Outcome { done: "reverted", ..Outcome::of(Plan::default()) };
    let (mut left, mut kept) = (saved.steps.clone(), Vec::new());
    while let Some(step) = left.pop() {
        let trouble = match carry::now(root, &step) {
            Some(now) if now == step.current => None,
            Some(now) if now != step.wanted => {
                Some(format!("is {now} now, which is not what was applied: left alone"))
            }
            Some(_) | None => {
                let refused = carry::revert(root, &step).err();
                if refused.is_some() {
                    kept.insert(0, step.clone());
                }
                refused
            }
        };
        let (current, wanted) = (step.wanted.clone(), step.current.clone());
        outcome.steps.push(Done { step: Step { current, wanted, ..step }, trouble });
        saved.steps = left.iter().chain(&kept).cloned().collect();
        store.keep(&saved)?;
    }
    if outcome.steps.is_empty() {
        outcome.notes.push("nothing was applied since the machine was started".into());
    }
    Ok(outcome)
}

fn render(outcome: &Outcome) -> String {
    let mut table = Table::new(&[
        ("KIND", Side::Left),
        ("WHAT", Side::Left),
        ("IS", Side::Left),
        ("SHALL BE", Side::Left),
        ("WHY", Side::Left),
    ]);
    for Done { step, trouble } in &outcome.steps {
        let why = match trouble {
            Some(trouble) => format!("REFUSED: {trouble}"),
            None => step.why.clone(),
        };
        let or_nothing = |value: &str| if value.is_empty() { "(empty)".to_owned() } else { plain(value) };
        table.row([
            step.kind.name().to_owned(),
            plain(&step.change.name()),
            or_nothing(&step.current),
            or_nothing(&step.wanted),
            plain(&why),
        ]);
    }
    let mut text = String::new();
    if !outcome.steps.is_empty() {
        text.push_str(&table.render());
    }
    for note in &outcome.notes {
        text.push_str(&format!("note: {}\n", plain(note)));
    }
    let refused = outcome.steps.iter().filter(|done| done.trouble.is_some()).count();
    let count = outcome.steps.len();
    text.push_str(&match (outcome.done, refused) {
        ("planned", _) if count == 0 => "nothing to do\n".to_owned(),
        ("planned", _) => format!("{count} steps; `dwcp tune --apply` does them until the next boot\n"),
        (done, 0) => format!("{count} steps {done}\n"),
        (done, refused) => format!("{} of {count} steps {done}, {refused} refused\n", count - refused),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use dwcp_config::Config;

    struct Host {
        root: tempfile::TempDir,
        state: tempfile::TempDir,
    }

    impl Host {
        fn new() -> Self {
            Self { root: facts::tests::machine(), state: tempfile::tempdir().unwrap() }
        }

        fn store(&self) -> Store {
            Store::new(self.state.path(), self.root.path())
        }

        fn apply(&self) -> Outcome {
            let facts = Facts::read(self.root.path(), &[]);
            apply(self.root.path(), &self.store(), plan::plan(&facts, &Config::default(), &[])).unwrap()
        }

        fn revert(&self) -> Outcome {
            revert(self.root.path(), &self.store()).unwrap()
        }

        fn value(&self, path: &str) -> String {
            std::fs::read_to_string(self.root.path().join(path)).unwrap().trim().to_owned()
        }

        /// Every file, with its text.
        fn files(&self) -> Vec<(std::path::PathBuf, String)> {
            let (mut found, mut folders) = (Vec::new(), vec![self.root.path().to_owned()]);
            while let Some(folder) = folders.pop() {
                for entry in std::fs::read_dir(folder).unwrap().flatten() {
                    if entry.path().is_dir() {
                        folders.push(entry.path());
                    } else {
                        let text = std::fs::read_to_string(entry.path()).unwrap();
                        found.push((entry.path(), text.split_whitespace().collect::<Vec<_>>().join(" ")));
                    }
                }
            }
            found.sort();
            found
        }
    }

    const RECEIVE: &str = "proc/sys/net/core/rmem_max";

    #[test]
    fn what_is_applied_is_taken_back_exactly() {
        let host = Host::new();
        let before = host.files();
        let applied = host.apply();
        assert!(
            applied.steps.len() == 11 && applied.steps.iter().all(|done| done.trouble.is_none()),
            "{applied:?}"
        );
        assert_eq!(host.value(RECEIVE), "33554432");
        assert!(host.apply().steps.is_empty(), "a second time there is nothing to do");
        let reverted = host.revert();
        assert_eq!(reverted.steps.len(), 11);
        assert_eq!(host.files(), before);
        assert_eq!(host.store().load().unwrap().steps, []);
        assert!(host.revert().steps.is_empty());
    }

    #[test]
    fn the_runbook_shows_what_is_printed() {
        let host = Host::new();
        let facts = Facts::read(host.root.path(), &[]);
        let plan = plan::plan(&facts, &Config::default(), &[]);
        let shown = render(&Outcome::of(plan));
        let runbook = include_str!("../../../docs/runbook.md");
        assert!(runbook.contains(&shown), "docs/runbook.md shows something else than:\n{shown}");
    }

    #[test]
    fn what_somebody_changed_since_is_left_alone() {
        let host = Host::new();
        host.apply();
        std::fs::write(host.root.path().join(RECEIVE), "99999999").unwrap();
        let reverted = host.revert();
        let refused: Vec<&Done> = reverted.steps.iter().filter(|done| done.trouble.is_some()).collect();
        assert!(
            refused.len() == 1 && refused[0].trouble.as_ref().unwrap().contains("99999999"),
            "{refused:?}"
        );
        assert_eq!(host.value(RECEIVE), "99999999");
        assert_eq!(host.value("proc/sys/net/core/default_qdisc"), "pfifo_fast");
    }

    #[test]
    fn the_first_value_is_put_back_however_often_it_is_applied() {
        let host = Host::new();
        host.apply();
        std::fs::write(host.root.path().join(RECEIVE), "1000").unwrap();
        host.apply();
        assert_eq!(host.value(RECEIVE), "33554432");
        host.revert();
        assert_eq!(host.value(RECEIVE), "4194304");
    }

    #[test]
    fn a_refusal_is_said_and_the_rest_is_done() {
        let host = Host::new();
        let place = host.root.path().join(RECEIVE);
        let facts = Facts::read(host.root.path(), &[]);
        // A directory in the place of the file takes no value.
        std::fs::remove_file(&place).unwrap();
        std::fs::create_dir(&place).unwrap();
        let plan = plan::plan(&facts, &Config::default(), &[]);
        let outcome = apply(host.root.path(), &host.store(), plan).unwrap();
        let refused: Vec<&Done> = outcome.steps.iter().filter(|done| done.trouble.is_some()).collect();
        assert!(refused.len() == 1 && refused[0].step.change.name() == "net.core.rmem_max", "{refused:?}");
        assert!(render(&outcome).contains("10 of 11 steps applied, 1 refused"));
        assert!(host.store().load().unwrap().steps.len() == 10, "and not reverted later");
    }

    #[test]
    fn a_reboot_has_reverted_everything() {
        let host = Host::new();
        host.apply();
        let random = host.root.path().join("proc/sys/kernel/random");
        std::fs::create_dir_all(&random).unwrap();
        std::fs::write(random.join("boot_id"), "another\n").unwrap();
        let reverted = host.revert();
        assert!(reverted.steps.is_empty() && reverted.notes.len() == 1);
        assert_eq!(host.value(RECEIVE), "33554432");
    }

    #[test]
    fn a_damaged_file_changes_nothing() {
        let host = Host::new();
        for text in ["{", "{\"schema\":\"dwcp.tuned/9\",\"boot\":\"\",\"steps\":[]}"] {
            std::fs::write(host.state.path().join("tune.json"), text).unwrap();
            assert!(revert(host.root.path(), &host.store()).is_err(), "{text}");
        }
        assert_eq!(host.value(RECEIVE), "4194304");
    }
}
