use super::*;

#[test]
fn a_path_belongs_to_the_innermost_tree() {
    let roots: Roots = ["/app", "/app/logs", "/"].map(Vec::from).into_iter().collect();
    let of = |path: &str| roots.of(path.as_bytes()).map(|(root, _)| str::from_utf8(root).unwrap());
    assert_eq!(of("/app"), Some("/app"));
    assert_eq!(of("/app/logs/a/b"), Some("/app/logs"));
    assert_eq!(of("/app/logsx"), Some("/app"));
    assert_eq!(of("/apple"), Some("/"));
    assert_eq!(of("/"), Some("/"));
    assert_eq!(roots.inside(b"/app").collect::<Vec<_>>(), [b"/app/logs"]);
    assert_eq!(roots.inside(b"/").count(), 2);
    assert!(Roots::from_iter([b"/a".to_vec()]).of(b"/").is_none());
}
