use super::*;

fn everything() -> Probe {
    Probe {
        listener: Ok(()),
        until_killed: Ok(()),
        wake_in_step: Ok(()),
        give: Ok(()),
        answer_with_descriptor: Ok(()),
        descriptors: Ok(()),
        memory: Ok(()),
        landlock: Ok(7),
        receive_only: Ok(()),
        sealed_memory: Ok(()),
        is_root: false,
        killed: None,
    }
}

fn level(probe: &Probe, name: &str) -> Level {
    Status::of(probe).layers.iter().find(|layer| layer.name == name).unwrap().level
}

#[test]
fn with_everything_every_layer_is_full() {
    let status = Status::of(&everything());
    assert!(status.confines());
    assert!(status.layers.iter().all(|layer| layer.level == Level::Full), "{status:?}");
}

#[test]
fn an_app_that_is_root_has_the_supervisor_end_first() {
    assert_eq!(level(&Probe { is_root: true, ..everything() }, "memory-pressure"), Level::Partial);
}

#[test]
fn no_listener_no_descriptors_or_no_sight_is_no_confinement() {
    for probe in [
        Probe { listener: Err(Errno::BUSY), ..everything() },
        Probe { listener: Err(Errno::CANCELED), killed: Some(31), ..everything() },
        Probe { give: Err(Errno::INVAL), ..everything() },
        Probe { descriptors: Err(Errno::ACCESS), ..everything() },
        Probe { memory: Err(Errno::PERM), ..everything() },
    ] {
        assert!(!Status::of(&probe).confines(), "{probe:?}");
    }
}

#[test]
fn older_kernels_confine_with_less() {
    let probe = Probe {
        until_killed: Err(Errno::INVAL),
        wake_in_step: Err(Errno::INVAL),
        answer_with_descriptor: Err(Errno::INVAL),
        landlock: Err(Errno::NOSYS),
        ..everything()
    };
    assert!(Status::of(&probe).confines());
    assert_eq!(level(&probe, "landlock-connect"), Level::None);
    for name in ["landlock-scopes", "interrupts", "speed"] {
        assert_eq!(level(&probe, name), Level::Partial, "{name}");
    }
    assert_eq!(level(&Probe { landlock: Ok(5), ..everything() }, "landlock-connect"), Level::Full);
    assert_eq!(level(&Probe { landlock: Ok(5), ..everything() }, "landlock-scopes"), Level::Partial);
}

#[test]
fn a_list_is_a_layer_of_its_own() {
    let with = |probe: &Probe, enforce| {
        let options = Options { exec: Some(ExecList { enforce, paths: Vec::new() }), ..Options::default() };
        Status::with(probe, &options).layers.last().map(|layer| (layer.name, layer.level)).unwrap()
    };
    assert_eq!(with(&everything(), true), ("exec", Level::Full));
    assert_eq!(with(&everything(), false), ("exec", Level::Partial));
    assert_eq!(with(&Probe { landlock: Ok(1), ..everything() }, true), ("exec", Level::Partial));
    assert_eq!(with(&Probe { sealed_memory: Err(Errno::INVAL), ..everything() }, true), ("exec", Level::Partial));
    assert_eq!(with(&Probe { landlock: Err(Errno::NOSYS), ..everything() }, true), ("exec", Level::None));
    assert_eq!(Status::with(&everything(), &Options::default()), Status::of(&everything()));
}
