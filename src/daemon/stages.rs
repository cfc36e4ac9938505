//! Stages: tasks that run as long as the gateway does. One that ends before it was told to ends the process.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::journal;

/// A stage has ended.
#[derive(Debug)]
pub(super) struct Ended {
    stage: &'static str,
    /// It was told to.
    told: bool,
}

/// A stage that tells its name when it ends, and whether `stop` told it to.
pub(super) async fn staged(
    stage: &'static str,
    stop: CancellationToken,
    work: impl Future<Output = ()>,
) -> Ended {
    work.await;
    Ended {
        stage,
        told: stop.is_cancelled(),
    }
}

/// The first stage that ended without having been told to. Cancel-safe.
pub(super) async fn fallen(stages: &mut JoinSet<Ended>) -> Result<Ended, JoinError> {
    loop {
        match stages.join_next().await {
            None => std::future::pending().await,
            Some(Ok(ended)) if ended.told => {}
            // A sink that was removed and did not say goodbye in time.
            Some(Err(error)) if error.is_cancelled() => {}
            Some(fallen) => return fallen,
        }
    }
}

/// Whether all ended in time and without a panic; those that did not end are cancelled.
pub(super) async fn finish(stages: &mut JoinSet<Ended>, grace: Duration) -> bool {
    let ended = async {
        let mut orderly = true;
        while let Some(ended) = stages.join_next().await {
            orderly &= ended.is_ok();
        }
        orderly
    };
    let orderly = timeout(grace, ended).await.unwrap_or(false);
    stages.shutdown().await;
    orderly
}

pub(super) fn stage_ended(joined: Result<Ended, JoinError>) -> Error {
    match joined {
        Ok(ended) => Error::StageEnded(ended.stage.into()),
        Err(error) => Error::StageEnded(format!("stage that panicked ({error})")),
    }
}

pub(super) fn journal_error(ended: Result<Result<(), journal::Error>, oneshot::error::RecvError>) -> Error {
    match ended {
        Ok(Err(error)) => Error::Journal(error),
        Ok(Ok(())) | Err(_) => Error::StageEnded("journal thread".into()),
    }
}
