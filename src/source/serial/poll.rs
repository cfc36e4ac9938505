//! When to ask what, one question at a time: the line is shared. Reads no clock, does no I/O.

use tokio::time::Instant;

use super::Poll;
use crate::reading::DeviceId;

/// The polls of one line and which of them waits for its answer.
#[derive(Debug)]
pub(super) struct Questions {
    polls: Vec<(Poll, Instant)>,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    device: Option<DeviceId>,
    /// The question without its line end: a two-wire line hears itself.
    echo: Vec<u8>,
    until: Instant,
}

/// What there is to do.
#[derive(Debug, PartialEq)]
pub(super) enum Turn {
    /// Wait.
    Nothing,
    /// The question's time is over.
    Unanswered,
    /// Send this; it is waited for from now on.
    Ask(Poll),
}

impl Questions {
    /// All are due at `now`.
    pub(super) fn new(polls: Vec<Poll>, now: Instant) -> Self {
        Self {
            polls: polls.into_iter().map(|poll| (poll, now)).collect(),
            asked: None,
        }
    }

    /// The port is open again: nobody will answer the old question, and all are due.
    pub(super) fn restart(&mut self, now: Instant) {
        self.asked = None;
        for (_, due) in &mut self.polls {
            *due = now;
        }
    }

    /// What there is to do at `now`. The longest due is asked first, so a silent device delays the others
    /// and starves none; questions that were missed meanwhile are not made up for.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        if let Some(asked) = &self.asked {
            if now < asked.until {
                return Turn::Nothing;
            }
            self.asked = None;
            return Turn::Unanswered;
        }
        let longest = self.polls.iter().enumerate().min_by_key(|(_, (_, due))| *due);
        let Some((index, &(_, due))) = longest else {
            return Turn::Nothing;
        };
        if now < due {
            return Turn::Nothing;
        }
        // Behind the others: of two that are due since the same instant the one asked longer ago is next.
        let (poll, due) = self.polls.remove(index);
        let next = if due + poll.every > now {
            due + poll.every
        } else {
            now + poll.every
        };
        self.polls.push((poll.clone(), next));
        self.asked = Some(Asked {
            device: poll.device.clone(),
            echo: poll.send.trim_ascii().to_vec(),
            until: now + poll.timeout,
        });
        Turn::Ask(poll)
    }

    /// When to look again; none if there are no questions.
    pub(super) fn wake(&self) -> Option<Instant> {
        match &self.asked {
            Some(asked) => Some(asked.until),
            None => self.polls.iter().map(|(_, due)| *due).min(),
        }
    }

    /// Whether a frame is only the question, heard by ourselves.
    pub(super) fn is_echo(&self, frame: &[u8]) -> bool {
        self.asked
            .as_ref()
            .is_some_and(|asked| !asked.echo.is_empty() && asked.echo == frame.trim_ascii())
    }

    /// A frame came: it answers the question that waits. Whose it is; none if none waits or it names none.
    pub(super) fn answered(&mut self) -> Option<DeviceId> {
        self.asked.take()?.device
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn poll(device: &str, every: Duration) -> Poll {
        Poll {
            send: format!("READ {device}\r\n").into_bytes(),
            every,
            device: DeviceId::new(device).ok(),
            timeout: SECOND,
        }
    }

    fn asked(turn: &Turn) -> &str {
        match turn {
            Turn::Ask(poll) => poll.device.as_ref().expect("every poll here names one").as_str(),
            other => panic!("expected a question, not {other:?}"),
        }
    }

    #[test]
    fn one_question_is_asked_at_a_time_and_the_answer_is_its_device_s() {
        let start = Instant::now();
        let mut questions = Questions::new(vec![poll("a", SECOND * 5), poll("b", SECOND * 5)], start);
        assert_eq!(asked(&questions.turn(start)), "a");
        assert_eq!(questions.turn(start), Turn::Nothing);
        assert_eq!(questions.answered().expect("a was asked").as_str(), "a");
        assert_eq!(asked(&questions.turn(start)), "b");
        assert_eq!(questions.answered().expect("b was asked").as_str(), "b");
        assert_eq!(questions.answered(), None);
        assert_eq!(questions.turn(start), Turn::Nothing);
        assert_eq!(questions.wake(), Some(start + SECOND * 5));
    }

    #[test]
    fn a_question_without_an_answer_ends_and_the_next_is_asked() {
        let start = Instant::now();
        let mut questions = Questions::new(vec![poll("a", SECOND * 5), poll("b", SECOND * 5)], start);
        questions.turn(start);
        assert_eq!(questions.wake(), Some(start + SECOND));
        assert_eq!(questions.turn(start + SECOND), Turn::Unanswered);
        assert_eq!(asked(&questions.turn(start + SECOND)), "b");
    }

    #[test]
    fn a_silent_device_starves_no_other() {
        let start = Instant::now();
        let mut questions = Questions::new(vec![poll("silent", SECOND / 10), poll("b", SECOND / 10)], start);
        let mut now = start;
        let mut order = Vec::new();
        while order.len() < 6 {
            let turn = questions.turn(now);
            if let Turn::Ask(_) = turn {
                order.push(asked(&turn).to_owned());
                if order.last().is_some_and(|device| device == "b") {
                    questions.answered();
                }
            }
            now = questions.wake().expect("there are questions").max(now);
        }
        assert_eq!(order, ["silent", "b", "silent", "b", "silent", "b"]);
    }

    #[test]
    fn missed_questions_are_not_made_up_for() {
        let start = Instant::now();
        let mut questions = Questions::new(vec![poll("a", SECOND)], start);
        questions.turn(start);
        questions.answered();
        let late = start + SECOND * 10;
        assert_eq!(asked(&questions.turn(late)), "a");
        questions.answered();
        assert_eq!(questions.turn(late), Turn::Nothing);
        assert_eq!(questions.wake(), Some(late + SECOND));
    }

    #[test]
    fn the_echo_of_a_question_is_no_answer() {
        let start = Instant::now();
        let mut questions = Questions::new(vec![poll("a", SECOND)], start);
        assert!(!questions.is_echo(b"READ a"));
        questions.turn(start);
        assert!(questions.is_echo(b"READ a"));
        assert!(!questions.is_echo(b"21.5"));
    }
}
