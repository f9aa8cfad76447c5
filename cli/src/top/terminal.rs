//! The terminal while `dwcp top` has it: keys come at once and unseen, pictures go to the screen beside the usual one.
//! However the command ends, also by a panic, the terminal is as it was.
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::exit::Failure;

/// What has to be put back, for whoever is first: the owner or a panic.
static BEFORE: Mutex<Option<Before>> = Mutex::new(None);

struct Before {
    keyboard: OwnedFd,
    screen: OwnedFd,
    settings: Termios,
}

/// Owns the terminal until it is dropped.
pub(super) struct Terminal {
    screen: std::fs::File,
}

impl Terminal {
    /// Takes it.
    pub(super) fn enter(keyboard: impl AsFd, screen: impl AsFd) -> Result<Self, Failure> {
        let failed =
            |error: std::io::Error| Failure::general(format!("the terminal cannot be used: {error}"));
        let settings = tcgetattr(&keyboard).map_err(|error| failed(error.into()))?;
        let mut raw = settings.clone();
        cfmakeraw(&mut raw);
        let clone = |file: &dyn AsFd| file.as_fd().try_clone_to_owned().map_err(failed);
        let before = Before { keyboard: clone(&keyboard)?, screen: clone(&screen)?, settings };
        let screen = clone(&screen)?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        restore_when_panicking();
        let mut terminal = Self { screen: screen.into() };
        tcsetattr(&keyboard, SetArg::TCSADRAIN, &raw).map_err(|error| failed(error.into()))?;
        terminal.screen.write_all(ENTER).map_err(failed)?;
        Ok(terminal)
    }

    /// Shows lines from the top of the screen; each replaces the one before without a blank moment.
    pub(super) fn draw(&mut self, lines: &[String]) -> Result<(), Failure> {
        let mut text = String::from(HOME);
        for (index, line) in lines.iter().enumerate() {
            // Without a line end behind the last one, which would scroll.
            text.push_str(if index == 0 { "" } else { "\r\n" });
            text.push_str(line);
            text.push_str(CLEAR_TO_RIGHT);
        }
        text.push_str(CLEAR_BELOW);
        let written = self.screen.write_all(text.as_bytes());
        written.map_err(|error| Failure::general(format!("cannot draw: {error}")))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

/// Once: a second call finds nothing to do.
fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Before { keyboard, screen, settings }) = before else { return };
    // A terminal that is gone needs nothing.
    drop(std::fs::File::from(screen).write_all(LEAVE));
    let _ = tcsetattr(&keyboard, SetArg::TCSADRAIN, &settings);
}

/// Nothing is unwound in a release build: the hook runs, and the process ends. The message comes to the usual screen.
fn restore_when_panicking() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        usual(panic);
    }));
}

/// The other screen, no cursor (xterm's private modes 1049 and 25).
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const CLEAR_TO_RIGHT: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::openpty;
    use nix::sys::termios::LocalFlags;
    use std::io::Read;

    fn is_raw(terminal: impl AsFd) -> bool {
        !tcgetattr(terminal).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    /// What the screen got, up to the end of what puts it back.
    fn seen(master: &mut std::fs::File) -> String {
        let (mut text, mut bytes) = (Vec::new(), [0; 4096]);
        while !text.ends_with(LEAVE) {
            let count = master.read(&mut bytes).unwrap();
            text.extend_from_slice(&bytes[..count]);
        }
        String::from_utf8(text).unwrap()
    }

    /// One test: there is one terminal to put back in a process, and one hook.
    #[test]
    fn the_terminal_is_put_back_when_dropped_and_by_a_panic() {
        let pty = openpty(None, None).unwrap();
        let mut master = std::fs::File::from(pty.master);
        {
            let mut terminal = Terminal::enter(&pty.slave, &pty.slave).unwrap();
            assert!(is_raw(&pty.slave));
            terminal.draw(&["one".to_owned(), "two".to_owned()]).unwrap();
        }
        assert!(!is_raw(&pty.slave));
        let text = seen(&mut master);
        assert!(text.contains("\x1b[?1049h") && text.contains("one\x1b[K\r\ntwo"), "{text:?}");
        let terminal = std::mem::ManuallyDrop::new(Terminal::enter(&pty.slave, &pty.slave).unwrap());
        // As in a release build, nobody drops anything.
        let panicked = std::panic::catch_unwind(|| panic!("a test's panic, and no mistake"));
        assert!(panicked.is_err() && !is_raw(&pty.slave));
        assert!(seen(&mut master).contains("\x1b[?1049h"));
        drop(std::mem::ManuallyDrop::into_inner(terminal));
        drop(std::panic::take_hook());
    }
}
