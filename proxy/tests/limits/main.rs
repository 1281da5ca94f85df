//! What ends a connection that would not end by itself: each limit small, the others out of reach, over real sockets. Which
//! limit it was is told by the record, so that no test depends on how fast a machine is.

mod scene;

mod phases; // slow clients, one phase after the other (R8)
mod tunnels; // idle, half-closed, paused at both ends (R1, R2, R10, R16)
mod places; // half-open clients and established ones keep one another out of nothing (R6)
mod faults; // upstreams and resolvers that never answer, clients that vanish, a panic (R11, R13, R15)
