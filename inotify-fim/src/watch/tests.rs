//! The cases of the catalogue that a watch can meet, by their ids.

mod namespace;
mod world;
mod running;
mod loss;
mod moves;
mod writes;
mod large;
mod full;
mod limits;
mod fuse;
mod mounts;
mod processes;
mod properties;
mod sys;
