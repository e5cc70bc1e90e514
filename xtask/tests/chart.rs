//! `cargo xtask chart`: what it writes is a repository that Helm takes from any web server.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

/// Answers GET with files of a folder, and what is missing with 404.
fn serve(listener: TcpListener, folder: PathBuf) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(&stream.unwrap(), &folder);
        }
    });
}

fn answer(mut stream: &TcpStream, folder: &Path) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let _headers = lines.take_while(|line| !line.is_empty()).count();
    let path = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let found = fs::read(folder.join(path));
    let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").unwrap();
    stream.write_all(&body).unwrap();
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

#[test]
fn a_web_server_with_the_folder_is_a_repository_for_helm() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("served");
    let verb = || {
        let mut verb = Command::new(env!("CARGO_BIN_EXE_xtask"));
        verb.args(["chart", "--out"]).arg(&out);
        verb
    };
    run(&mut verb());
    // As for the next version: what is there stays in the index.
    run(&mut verb());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    serve(listener, out);
    let helm = |arguments: &[&str]| {
        let tools = std::env::var_os("SPIDERPOOL_TOOLS")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools"), PathBuf::from);
        let mut helm = Command::new(tools.join("bin/helm"));
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            helm.env(home, folder.path().join("home"));
        }
        run(helm.args(arguments))
    };
    helm(&["repo", "add", "spiderpool", &url]);
    let version = env!("CARGO_PKG_VERSION");
    let found = helm(&["search", "repo", "spiderpool/spiderpool", "--versions"]);
    assert_eq!(found.matches("spiderpool/spiderpool").count(), 1, "{found}");
    assert!(found.contains(version), "{found}");
    let rendered = helm(&["template", "spiderpool", "spiderpool/spiderpool", "--include-crds"]);
    assert!(
        rendered.contains("network-attachment-definitions.k8s.cni.cncf.io"),
        "the CRDs are in the package"
    );
}
