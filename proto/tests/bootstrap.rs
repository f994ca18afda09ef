//! The checked-in code is what the `.proto` files say.

use std::path::Path;

const FILES: [&str; 2] = ["mesh/peer/v1/peer.proto", "mesh/admin/v1/admin.proto"];

#[test]
fn generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(FILES, [root]).unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .build_transport(true)
        .compile_fds(descriptors)
        .unwrap();
    let regenerate = std::env::var_os("SHARDGATE_REGENERATE").is_some();
    for name in ["mesh.peer.v1.rs", "mesh.admin.v1.rs"] {
        let fresh = std::fs::read_to_string(out.path().join(name)).unwrap();
        let kept = root.join("src/gen").join(name);
        if regenerate {
            std::fs::write(&kept, &fresh).unwrap();
        }
        let old = std::fs::read_to_string(&kept).unwrap_or_default();
        assert!(
            fresh == old,
            "{} is stale: run SHARDGATE_REGENERATE=1 cargo test -p shardgate-proto",
            kept.display()
        );
    }
}
