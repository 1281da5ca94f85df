//! A first scan of 10,000 files of 4 KiB in 100 directories, comparisons that find nothing, and the manifest of them.

use std::fs;
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use egret_inotify_fim::manifest;
use egret_inotify_fim::roots::Roots;
use egret_inotify_fim::scan::{Options, Read, scan};
use egret_inotify_fim::view::{View, compare};
use tempfile::TempDir;

fn files() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for directory in 0..100 {
        let directory = folder.path().join(directory.to_string());
        fs::create_dir(&directory).expect("a directory");
        for file in 0..100 {
            fs::write(directory.join(file.to_string()), [7; 4096]).expect("a file");
        }
    }
    // Files as young as this are read at every look.
    thread::sleep(Duration::from_millis(50));
    folder
}

fn benches(c: &mut Criterion) {
    let folder = files();
    let roots: Roots = [folder.path().as_os_str().as_bytes().to_vec()].into_iter().collect();
    let known = scan(&roots, &View::default(), &Options::default()).view;
    for threads in [1, 2] {
        let options = Options { threads, ..Options::default() };
        c.bench_function(&format!("10,000 files read, {threads} threads"), |b| {
            b.iter(|| scan(black_box(&roots), &View::default(), &options));
        });
        c.bench_function(&format!("10,000 files known, {threads} threads"), |b| {
            b.iter(|| scan(black_box(&roots), &known, &options));
        });
    }
    let image = known.clone().portable();
    let glance = Options { read: Read::Nothing, ..Options::default() };
    c.bench_function("10,000 files of a manifest, by size and time", |b| b.iter(|| scan(black_box(&roots), &image, &glance)));
    c.bench_function("10,000 files compared", |b| b.iter(|| compare(black_box(&image), &known)));
    let text = manifest::write(&known);
    c.bench_function("10,000 lines written", |b| b.iter(|| manifest::write(black_box(&known))));
    c.bench_function("10,000 lines read", |b| b.iter(|| manifest::read(black_box(text.as_bytes()))));
}

criterion_group! {
    name = all;
    config = Criterion::default().sample_size(10);
    targets = benches
}
criterion_main!(all);
