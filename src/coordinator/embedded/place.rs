//! Where the store may lie: on a file system of this host.

use std::io;
use std::path::Path;

/// File systems that several hosts may share, or that a daemon of unknown manners answers for: by the magic number of
/// statfs. On them `link` need not be exclusive, nor a sync durable, nor a name seen by all at once.
const REFUSED: &[(u32, &str)] = &[
    (0x0000_6969, "NFS"),
    (0x0000_517B, "SMB"),
    (0xFE53_4D42, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "FUSE"),
    (0x00C3_6400, "Ceph"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
    (0x7375_7245, "Coda"),
    (0x0000_564C, "NCP"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
    (0x1983_0326, "BeeGFS"),
    (0x7C7C_6673, "PRL_FS"),
    (0x786F_4256, "VirtualBox shared folder"),
    (0xBACB_ACBC, "VMware shared folder"),
    (0xAAD7_AAEA, "PanFS"),
    (0xBEEF_DEAD, "StorNext"),
];

/// The name of the file system that `path` lies on (or will: the nearest folder above it that exists), where it is
/// one to refuse.
pub(super) fn refused_file_system(path: &Path) -> io::Result<Option<&'static str>> {
    let absolute = std::path::absolute(path)?;
    let existing = absolute.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let kind = rustix::fs::statfs(existing)?.f_type;
    // The number is 32 bits; the field's width and sign differ between architectures.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the upper half is sign only")]
    Ok(name_if_refused(kind as u32))
}

fn name_if_refused(magic: u32) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == magic).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_refused_by_name_and_local_ones_are_not() {
        assert_eq!(name_if_refused(0x6969), Some("NFS"));
        assert_eq!(name_if_refused(0x0102_1997), Some("9p"));
        let local = [0xEF53, 0x5846_5342, 0x9123_683E, 0x2FC1_2FC1, 0x0102_1994, 0x794C_7630, 0xF2F5_2010];
        assert!(local.iter().all(|magic| name_if_refused(*magic).is_none()), "ext xfs btrfs zfs tmpfs overlay f2fs");
    }

    #[test]
    fn a_path_that_does_not_exist_yet_is_judged_by_the_folder_above_it() {
        assert_eq!(refused_file_system(Path::new("/proc/no/such/file")).expect("an answer"), None);
    }
}
