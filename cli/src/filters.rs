//! `--exclude` and `--include`: two options that make one list, in the order of the command line. The derived arguments
//! would lose that order.
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::Error;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use dwcp_api::{Filter, PathText};

/// Rules in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filters(pub(crate) Vec<Filter>);

impl FromArgMatches for Filters {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut rules = Vec::new();
        for (option, rule) in RULES {
            let places = matches.indices_of(option).into_iter().flatten();
            let patterns = matches.get_many::<PathText>(option).into_iter().flatten();
            rules.extend(places.zip(patterns.map(|pattern| rule(pattern.clone()))));
        }
        rules.sort_by_key(|(place, _)| *place);
        Ok(Self(rules.into_iter().map(|(_, rule)| rule).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Filters {
    fn augment_args(command: Command) -> Command {
        command
            .arg(option("exclude").help(
                "Leave out what matches, as rsync does: *, **, ?, [a-z]; / at the start for the root of what is sent, / at \
                 the end for directories only. May be given more than once",
            ))
            .arg(option("include").help(
                "Do not leave out what matches, whatever a later --exclude says: the first pattern that matches decides",
            ))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn option(name: &'static str) -> Arg {
    let pattern = OsStringValueParser::new().try_map(|text: OsString| {
        let pattern = PathText::new(text.into_vec()).map_err(|error| error.to_string())?;
        let refused = Filter::Exclude(pattern.clone()).check();
        refused.map(|()| pattern).map_err(|refused| refused.reason.to_string())
    });
    Arg::new(name).long(name).value_name("PATTERN").action(ArgAction::Append).value_parser(pattern)
}

type Make = fn(PathText) -> Filter;

const RULES: [(&str, Make); 2] = [("exclude", Filter::Exclude), ("include", Filter::Include)];
