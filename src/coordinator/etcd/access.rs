//! What etcd lets this process do, for `epochgate check`: every user may ask for its own roles.

use etcd_client::{GetOptions, PermissionType};

use super::endpoints::Link;
use super::failure::Failure;
use super::settings::Settings;
use crate::coordinator::privileges::{Grant, KeyRange};

/// Whom etcd takes this process for, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything, as everybody may who can connect: authentication is off, or, where the client certificate names a
    /// user and nobody logs in, that user is root. etcd does not tell a certificate which.
    Open {
        /// The user that the client certificate names.
        by_certificate: Option<String>,
    },
    /// What its roles say.
    User {
        /// Its name.
        name: String,
        /// Its roles.
        roles: Vec<String>,
        /// What they grant, without that of `root`, which is everything.
        grants: Vec<Grant>,
    },
}

pub(super) async fn ask(settings: &Settings, mut link: Link) -> Result<Access, Failure> {
    if link.open {
        return Ok(Access::Open { by_certificate: None });
    }
    let (name, by_certificate) = match (settings.user(), settings.certificate_name()) {
        (Some(name), _) => (name.to_owned(), false),
        (None, Some(name)) => (name, true),
        (None, None) => {
            let nothing = GetOptions::new().with_prefix().with_count_only();
            link.client.get(settings.prefix.as_str(), Some(nothing)).await?;
            return Ok(Access::Open { by_certificate: None });
        }
    };
    // With authentication off this question is answered to everybody, and with it on only to root. A user of a password
    // has been told at its login.
    if by_certificate && link.client.user_list().await.is_ok() {
        return Ok(Access::Open { by_certificate: Some(name) });
    }
    let roles = link.client.user_get(name.as_str()).await?.roles().to_vec();
    let mut grants = Vec::new();
    for role in roles.iter().filter(|role| *role != "root") {
        let permissions = link.client.role_get(role.as_str()).await?.permissions();
        grants.extend(permissions.iter().map(|permission| {
            let kind = permission.get_type();
            Grant {
                role: role.clone(),
                read: kind != PermissionType::Write as i32,
                write: kind != PermissionType::Read as i32,
                keys: KeyRange::granted(permission.key(), permission.range_end()),
            }
        }));
    }
    Ok(Access::User { name, roles, grants })
}
