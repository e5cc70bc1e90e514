//! Programs written in Go: taken from `$KUBEBUILDER_ASSETS` or PATH where their
//! version fits, otherwise built from the modules pinned in `xtask/tools`.
//!
//! Each folder there is one Go module: go.mod names the version, tools.go (or
//! another file beside it) the commands, go.sum the contents.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    lookup::{self, Version},
    stamp::{self, Stamp},
};
use crate::{architecture::Architecture, process, workspace::Workspace};

/// One module folder of `xtask/tools`.
pub(super) struct Module {
    folder: &'static str,
    /// The file that names the commands.
    commands: &'static str,
    /// The pinned module, as go.mod names it.
    path: &'static str,
    /// Where its programs go, below the tools folder.
    destination: &'static str,
    /// The oldest version that is taken from `$KUBEBUILDER_ASSETS`.
    oldest: Version,
    /// Linker flags that tell the program its version, with `VERSION`, `MAJOR`, `MINOR` to fill in.
    stamping: &'static [&'static str],
    hint: &'static str,
}

pub(super) const ETCD: Module = Module {
    folder: "etcd",
    commands: "tools.go",
    path: "go.etcd.io/etcd/server/v3",
    destination: "bin",
    oldest: Version::new(3, 5, 13),
    stamping: &[],
    hint: "seconds to half a minute",
};

pub(super) const KUBERNETES: Module = Module {
    folder: "kubernetes",
    commands: "tools.go",
    path: "k8s.io/kubernetes",
    destination: "bin",
    oldest: Version::new(1, 30, 0),
    stamping: &[
        "k8s.io/component-base/version.gitVersion=VERSION",
        "k8s.io/component-base/version.gitMajor=MAJOR",
        "k8s.io/component-base/version.gitMinor=MINOR",
        "k8s.io/client-go/pkg/version.gitVersion=VERSION",
        "k8s.io/client-go/pkg/version.gitMajor=MAJOR",
        "k8s.io/client-go/pkg/version.gitMinor=MINOR",
    ],
    hint: "up to 3 minutes",
};

/// kubelet and controllers, of the same module.
pub(super) const KUBERNETES_NODE: Module = Module { commands: "node.go", ..KUBERNETES };

pub(super) const CNI_PLUGINS: Module = Module {
    folder: "cni-plugins",
    commands: "tools.go",
    path: "github.com/containernetworking/plugins",
    destination: "cni",
    oldest: Version::new(1, 4, 0),
    stamping: &["github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=VERSION"],
    hint: "seconds to half a minute",
};

pub(super) const MULTUS: Module = Module {
    folder: "multus",
    commands: "tools.go",
    path: "gopkg.in/k8snetworkplumbingwg/multus-cni.v4",
    destination: "bin",
    oldest: Version::new(4, 0, 0),
    stamping: &["gopkg.in/k8snetworkplumbingwg/multus-cni.v4/pkg/multus.version=VERSION"],
    hint: "up to a minute",
};

pub(super) const HELM: Module = Module {
    folder: "helm",
    commands: "tools.go",
    path: "helm.sh/helm/v4",
    destination: "bin",
    oldest: Version::new(4, 0, 0),
    stamping: &["helm.sh/helm/v4/internal/version.version=VERSION"],
    hint: "up to 2 minutes",
};

/// A module with what its files say.
struct Pinned<'a> {
    module: &'a Module,
    folder: PathBuf,
    version: String,
    /// Import paths of the commands.
    commands: Vec<String>,
    digest: String,
}

/// Makes sure of the module's programs, and says which they are.
pub(super) fn ensure(workspace: &Workspace, module: &Module) -> Result<String> {
    let pinned = Pinned::read(workspace, module)?;
    let destination = workspace.tools().join(module.destination);
    fs::create_dir_all(&destination).with_context(|| format!("cannot create {}", destination.display()))?;
    let wanted = format!("{} {}", pinned.version, pinned.digest);
    let mut words = vec![pinned.version.clone()];
    for command in &pinned.commands {
        let program = destination.join(program_name(command));
        let stamp = Stamp::new(workspace, &program, wanted.clone());
        let origin = if let Some(origin) = stamp.origin() {
            origin
        } else {
            let origin = install(&pinned, command, &program, workspace.architecture())?;
            stamp.write(&origin)?;
            origin
        };
        words.push(program_name(command).to_owned());
        if origin != BUILT {
            words.push(format!("({origin})"));
        }
    }
    Ok(words.join(" "))
}

/// Links or builds one program; answers where it is from.
fn install(pinned: &Pinned<'_>, command: &str, program: &Path, architecture: Architecture) -> Result<String> {
    match existing(pinned, program).filter(|_| architecture == Architecture::HOST) {
        Some(elsewhere) => link(&elsewhere, program),
        None => build(pinned, command, program, architecture),
    }
}

const BUILT: &str = "built";

impl<'a> Pinned<'a> {
    fn read(workspace: &Workspace, module: &'a Module) -> Result<Self> {
        let folder = workspace.root().join("xtask/tools").join(module.folder);
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (go_mod, go_sum, tools) = (read("go.mod")?, read("go.sum")?, read(module.commands)?);
        let version = required_version(&go_mod, module.path)
            .with_context(|| format!("{}/go.mod does not require {}", folder.display(), module.path))?;
        let digest = stamp::digest(&[&go_mod, &go_sum, &module.stamping.join(" ")]);
        Ok(Self { module, version: version.to_owned(), commands: commands(&tools), digest, folder })
    }

    fn ldflags(&self) -> Result<String> {
        let version = Version::find(&self.version)
            .with_context(|| format!("{} is not a version that can be stamped", self.version))?;
        let stamps = self.module.stamping.iter().map(|stamp| {
            let stamp = stamp
                .replace("VERSION", &self.version)
                .replace("MAJOR", &version.major.to_string())
                .replace("MINOR", &version.minor.to_string());
            format!(" -X {stamp}")
        });
        Ok(format!("-s -w{}", stamps.collect::<String>()))
    }

    /// Whether a program of this version can stand in for the pinned one.
    fn fits(&self, version: Version, place: Place) -> bool {
        match place {
            Place::Assets => version >= self.module.oldest,
            Place::Path => Version::find(&self.version)
                .is_some_and(|pinned| (pinned.major, pinned.minor) == (version.major, version.minor)),
        }
    }
}

/// Where a program was found: chosen by the developer, or there by chance.
#[derive(Clone, Copy)]
enum Place {
    Assets,
    Path,
}

/// A fitting program on this machine that can stand in for our own.
fn existing(pinned: &Pinned<'_>, own: &Path) -> Option<PathBuf> {
    let name = own.file_name()?.to_str()?;
    let assets = env::var_os("KUBEBUILDER_ASSETS")
        .and_then(|folder| lookup::in_folder(&std::path::absolute(folder).ok()?, name));
    let cni = || lookup::in_folder(Path::new("/opt/cni/bin"), name);
    let on_path = lookup::on_path(name).or_else(cni);
    [(assets, Place::Assets), (on_path, Place::Path)].into_iter().find_map(|(program, place)| {
        let program = program.filter(|program| program != own)?;
        let arguments: &[&str] = match name {
            "kubectl" => &["version", "--client"],
            "helm" => &["version", "--short"],
            "etcdutl" => &["version"],
            _ => &["--version"],
        };
        let version = Version::find(&process::output(process::command(&program).args(arguments))?)?;
        pinned.fits(version, place).then_some(program)
    })
}

fn link(elsewhere: &Path, program: &Path) -> Result<String> {
    if program.symlink_metadata().is_ok() {
        fs::remove_file(program).with_context(|| format!("cannot replace {}", program.display()))?;
    }
    symlink(elsewhere, program).with_context(|| format!("cannot create {}", program.display()))?;
    Ok(elsewhere.display().to_string())
}

fn build(pinned: &Pinned<'_>, command: &str, program: &Path, architecture: Architecture) -> Result<String> {
    if lookup::on_path("go").is_none() {
        bail!(
            "there is no Go on PATH to build it with: install it from go.dev/dl, then run the same verb again"
        );
    }
    let mut go = process::command("go");
    go.current_dir(&pinned.folder)
        .env("CGO_ENABLED", "0") // it runs in namespaces with other roots: no shared libraries
        .env("GOWORK", "off")
        .env_remove("GOOS")
        .env("GOARCH", architecture.name())
        .args([
            "build",
            "-trimpath",
            "-buildvcs=false",
            "-mod=readonly",
            "-ldflags",
            &pinned.ldflags()?,
            "-o",
        ]);
    // Beside the old one, then renamed over it: that one may be running.
    let fresh = program.with_extension("new");
    let title =
        format!("{} {} from Go modules ({})", program_name(command), pinned.version, pinned.module.hint);
    process::step(&title, go.arg(&fresh).arg(command))?;
    fs::rename(&fresh, program).with_context(|| format!("cannot create {}", program.display()))?;
    Ok(BUILT.to_owned())
}

/// The version of `path` in a go.mod.
fn required_version<'a>(go_mod: &'a str, path: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let line = line.trim().strip_prefix("require ").unwrap_or(line.trim());
        line.strip_prefix(path)?.strip_prefix(' ')?.split_whitespace().next()
    })
}

/// The commands that a file imports.
fn commands(tools: &str) -> Vec<String> {
    let import = |line: &str| Some(line.trim().strip_prefix("_ \"")?.strip_suffix('"')?.to_owned());
    tools.lines().filter_map(import).collect()
}

/// What the program of an import path is called.
fn program_name(command: &str) -> &str {
    if command == ETCD.path {
        return "etcd";
    }
    let is_version = |word: &str| word.strip_prefix('v').is_some_and(|rest| rest.parse::<u8>().is_ok());
    command.rsplit('/').find(|word| !is_version(word)).unwrap_or(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(module: &Module) -> Pinned<'_> {
        Pinned::read(&Workspace::find().unwrap(), module).unwrap()
    }

    #[test]
    fn every_module_folder_names_a_version_and_its_programs() {
        let check = |module: &Module, expect: &[&str]| {
            let pinned = pinned(module);
            let names: Vec<_> = pinned.commands.iter().map(|command| program_name(command)).collect();
            assert!(Version::find(&pinned.version).is_some(), "{}: {}", module.folder, pinned.version);
            for name in expect {
                assert!(names.contains(name), "{}: {name} is not in {names:?}", module.folder);
            }
        };
        check(&ETCD, &["etcd", "etcdutl"]);
        check(&KUBERNETES, &["kube-apiserver", "kube-proxy", "kubectl"]);
        check(&KUBERNETES_NODE, &["kubelet", "kube-controller-manager", "kube-scheduler"]);
        check(&MULTUS, &["multus"]);
        check(&HELM, &["helm"]);
        check(&CNI_PLUGINS, &["macvlan", "host-local", "loopback", "ptp", "bridge"]);
    }

    #[test]
    fn linker_flags_carry_the_pinned_version() {
        let flags = pinned(&KUBERNETES).ldflags().unwrap();
        let version = pinned(&KUBERNETES).version;
        assert!(flags.contains(&format!("component-base/version.gitVersion={version} ")), "{flags}");
        assert!(flags.contains("version.gitMajor=1 "), "{flags}");
        assert!(!flags.contains("VERSION") && !flags.contains("MINOR"), "{flags}");
    }

    #[test]
    fn program_of_another_minor_version_is_taken_from_assets_only() {
        let pinned = pinned(&KUBERNETES);
        let own = Version::find(&pinned.version).unwrap();
        let older = Version::new(own.major, own.minor - 1, 0);
        assert!(pinned.fits(own, Place::Path) && pinned.fits(own, Place::Assets));
        assert!(!pinned.fits(older, Place::Path) && pinned.fits(older, Place::Assets));
        assert!(!pinned.fits(Version::new(1, 29, 9), Place::Assets), "too old for the project");
    }
}
