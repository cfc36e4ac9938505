//! Clocks that stand still until their owner moves them, or go with tokio's time: for tests and stories.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{BootId, EngineTime, Timestamp};

/// A machine's clocks, all of them in one hand. Clones are the same clocks.
#[derive(Clone, Debug)]
pub struct Simulated(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    boot_id: BootId,
    boot: EngineTime,
    wall: Timestamp,
    /// What the wall clock gains, in millionths.
    drift: i64,
    synchronised: bool,
    /// Up to here tokio's time has passed on them, too; none: they stand still.
    ticked: Option<tokio::time::Instant>,
}

impl Simulated {
    /// A machine that boots now, in 1970, with nobody to ask for the time.
    #[must_use]
    pub fn new(boot_id: BootId) -> Self {
        Self(Arc::new(Mutex::new(Hands::booted(boot_id))))
    }

    /// From now on they go as tokio's time does, which a test may pause.
    pub fn follow_tokio(&self) {
        self.hands().ticked = Some(tokio::time::Instant::now());
    }

    /// Time passes, on both clocks.
    pub fn advance(&self, by: Duration) {
        self.hands().advance(by);
    }

    /// Somebody sets the wall clock.
    pub fn set(&self, wall: Timestamp) {
        self.hands().wall = wall;
    }

    /// From now on the wall clock gains so many millionths: a leap second that is smeared.
    pub fn drift(&self, millionths: i64) {
        self.hands().drift = millionths;
    }

    /// Whether a time source vouches for the wall clock, from now on.
    pub fn synchronise(&self, synchronised: bool) {
        self.hands().synchronised = synchronised;
    }

    /// The machine boots anew, in 1970: it has no other clock. For [`super::Clock`]s that are made from now on.
    pub fn reboot(&self, boot_id: BootId) {
        let mut hands = self.hands();
        let ticked = hands.ticked;
        *hands = Hands::booted(boot_id);
        hands.ticked = ticked;
    }

    pub(super) fn boot_id(&self) -> BootId {
        self.hands().boot_id
    }

    pub(super) fn boot(&self) -> EngineTime {
        self.hands().boot
    }

    pub(super) fn wall(&self) -> Timestamp {
        self.hands().wall
    }

    pub(super) fn is_synchronised(&self) -> bool {
        self.hands().synchronised
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        let mut hands = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ticked) = hands.ticked {
            let now = tokio::time::Instant::now();
            hands.ticked = Some(now);
            hands.advance(now - ticked);
        }
        hands
    }
}

impl Hands {
    fn booted(boot_id: BootId) -> Self {
        Self {
            boot_id,
            boot: EngineTime(0),
            wall: Timestamp(0),
            drift: 0,
            synchronised: false,
            ticked: None,
        }
    }

    fn advance(&mut self, by: Duration) {
        let micros = super::micros(by);
        self.boot = self.boot.after(by);
        let gained = i128::from(micros) * i128::from(self.drift) / 1_000_000;
        self.wall = Timestamp(self.wall.0 + micros + i64::try_from(gained).unwrap_or(0));
    }
}
