//! Who may read and change what lies in the hotfolder: PTworkflow, RIP and staff are other users than the portal, and a
//! service's umask would keep them out.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Permissions of what the portal makes on the share, whatever its umask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes {
    pub file: u32,
    pub folder: u32,
}

impl Default for Modes {
    fn default() -> Self {
        Self { file: 0o664, folder: 0o775 }
    }
}

impl Modes {
    pub(super) fn give_file(self, path: &Path) {
        give(path, self.file);
    }

    pub(super) fn give_folder(self, path: &Path) {
        give(path, self.folder);
    }

    /// A folder and those above it that are missing.
    pub(super) fn make_folders(self, path: &Path) -> io::Result<()> {
        match fs::create_dir(path) {
            Ok(()) => {
                self.give_folder(path);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let Some(above) = path.parent() else { return Err(error) };
                self.make_folders(above)?;
                match fs::create_dir(path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                    Ok(()) | Err(_) => {
                        self.give_folder(path);
                        Ok(())
                    }
                }
            }
            Err(error) => Err(error),
        }
    }
}

/// What a parent folder hands down (set-group-ID) stays.
fn give(path: &Path, mode: u32) {
    let given = fs::symlink_metadata(path).and_then(|meta| {
        let now = meta.permissions().mode();
        fs::set_permissions(path, fs::Permissions::from_mode((now & 0o6000) | mode))
    });
    if let Err(error) = given {
        // SMB mounts have permissions of their own.
        tracing::debug!(%error, path = %path.display(), "permissions stay as they are");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_files_get_their_modes_and_keep_what_a_parent_hands_down() {
        let dir = std::env::temp_dir().join(format!("ptportal-modes-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o2750)).unwrap();
        let modes = Modes { file: 0o640, folder: 0o770 };
        modes.make_folders(&dir.join("a/b")).unwrap();
        modes.make_folders(&dir.join("a/b")).unwrap();
        fs::write(dir.join("a/f"), "x").unwrap();
        modes.give_file(&dir.join("a/f"));
        let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("a"), mode("a/b"), mode("a/f")), (0o2770, 0o2770, 0o640));
        fs::remove_dir_all(&dir).unwrap();
    }
}
