//! Hands the host's target triple to xtask, which builds static programs for it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=XTASK_HOST={}", std::env::var("HOST").unwrap_or_default());
}
