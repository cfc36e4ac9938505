//! Who may connect, and what for. Pure.
//!
//! The door listens on loopback only (the configuration refuses other addresses while devices cannot prove
//! who they are), so whoever reaches it may connect under any name. What nobody may: speak for the gateway.

use std::sync::Arc;

use super::{
    topics,
    wire::{Connect, Version, reason},
};
use crate::hub::Key;

/// The longest client id and user name, in bytes: they are kept and logged.
const MAX_NAME: usize = 256;

/// Decides about a CONNECT. `chosen` is the client id for those who bring none.
///
/// # Errors
///
/// The reason code to refuse with.
pub fn admit(connect: &Connect, chosen: &str) -> Result<Key, u8> {
    if connect.enhanced {
        return Err(reason::BAD_AUTH_METHOD);
    }
    if connect.client.is_empty() && !connect.clean && connect.version == Version::V311 {
        return Err(reason::CLIENT_ID);
    }
    if connect.client.len() > MAX_NAME {
        return Err(reason::CLIENT_ID);
    }
    if connect.user.as_ref().is_some_and(|user| user.len() > MAX_NAME) {
        return Err(reason::BAD_CREDENTIALS);
    }
    if connect
        .will
        .as_ref()
        .is_some_and(|will| topics::reserved(&will.publish.topic).is_some())
    {
        return Err(reason::NOT_AUTHORISED);
    }
    let client: Arc<str> = if connect.client.is_empty() {
        chosen.into()
    } else {
        connect.client.as_str().into()
    };
    Ok(Key {
        user: connect.user.as_deref().map(Into::into),
        client,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::source::mqtt::wire::{LastWill, Publish};

    fn connect() -> Connect {
        Connect {
            version: Version::V311,
            client: "é/+#$".to_owned(),
            clean: true,
            keep_alive: 0,
            user: None,
            password: None,
            will: None,
            receive_maximum: 1,
            max_packet: None,
            session_expiry: 0,
            enhanced: false,
        }
    }

    #[test]
    fn any_name_may_connect_on_loopback() {
        assert_eq!(admit(&connect(), "x").unwrap().client.as_ref(), "é/+#$");
        let nameless = Connect {
            client: String::new(),
            ..connect()
        };
        assert_eq!(admit(&nameless, "x").unwrap().client.as_ref(), "x");
    }

    #[test]
    fn a_session_without_a_name_cannot_be_found_again() {
        let nameless = Connect {
            client: String::new(),
            clean: false,
            ..connect()
        };
        assert_eq!(admit(&nameless, "x"), Err(reason::CLIENT_ID));
    }

    #[test]
    fn nobody_leaves_a_will_in_the_gateways_name() {
        let publish = Publish {
            dup: false,
            qos: 0,
            retain: false,
            id: 0,
            topic: "tidegate/g/status".to_owned(),
            alias: None,
            payload: Bytes::new(),
            properties: None,
        };
        let willing = Connect {
            will: Some(LastWill { publish, delay: 0 }),
            ..connect()
        };
        assert_eq!(admit(&willing, "x"), Err(reason::NOT_AUTHORISED));
    }

    #[test]
    fn enhanced_authentication_is_not_offered() {
        assert_eq!(
            admit(
                &Connect {
                    enhanced: true,
                    ..connect()
                },
                "x"
            ),
            Err(reason::BAD_AUTH_METHOD)
        );
    }
}
