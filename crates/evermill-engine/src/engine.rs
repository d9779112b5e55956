//! Opening: from options to a running shard thread.

use std::sync::{Arc, Mutex};

use crossbeam_channel::bounded;

use crate::board::Board;
use crate::boot::{Boot, start_committer};
use crate::doors::Doors;
use crate::handle::{Handle, Shared};
use crate::input::Input;
use crate::kept::Kept;
use crate::limits;
use crate::log::Logger;
use crate::masking;
use crate::open::{OpenError, OpenOptions};
use crate::prepare::{PoolNumbers, Preparation};
use crate::shard::{Shard, World};
use crate::traces::Tracing;

/// The engine; see [`Engine::open`] and [`Handle`].
#[derive(Debug)]
pub struct Engine;

impl Engine {
    /// Opens the store, resumes what it holds (committed before this returns), and starts the
    /// executor and the shard's thread. No run is switched on: see [`Handle::start`].
    ///
    /// # Errors
    /// [`OpenError`], with the cure in its text.
    pub fn open(options: OpenOptions) -> Result<Handle, OpenError> {
        let OpenOptions {
            data_dir,
            store: mut store_factory,
            executor,
            sources,
            settings,
            pools: slots,
            clock,
            log,
            retain_logs,
            notices,
            alerts,
            traces,
        } = options;
        let notices = masking::notices(&settings, notices);
        let system = |doing: &str| {
            let doing = doing.to_owned();
            move |cause| OpenError::System { doing, cause }
        };
        let pools = Arc::new(PoolNumbers::default());
        let mut store = store_factory()?;
        let boot = Boot {
            data_dir: &data_dir,
            pools: &pools,
            slots: &slots,
            now: clock.now_ms(),
            incarnation: 0,
            unclean: !store.header().clean,
            unpacks: true,
        };
        let booted = boot.boot(&mut *store)?;
        let reader = Mutex::new(store.reader()?);
        let (input, inbox) = bounded::<Input>(limits::INPUTS_QUEUED);
        let events = input.clone();
        let masks = Arc::clone(&settings);
        let executor = executor(Box::new(move |event| {
            let event = masking::report(&*masks, event);
            // The shard has ended: nobody wants to know any more.
            drop(events.send(Input::Worker(event)));
        }))
        .map_err(OpenError::Executor)?;
        let committer = start_committer(store, input.clone())?;
        let kept = Kept::new(&data_dir, retain_logs);
        let logger = Logger::start(log, kept, clock.clone(), Arc::clone(&notices));
        let logger = logger.map_err(system("starting the log's thread"))?;
        let board = Arc::new(Board::default());
        let doors = Arc::new(Doors::default());
        let world = World {
            data_dir: data_dir.clone(),
            store: store_factory,
            settings: Arc::clone(&settings),
            sources: Arc::clone(&sources),
            clock: clock.clone(),
            logger,
            notices: Arc::clone(&notices),
            alerts,
            pools: Arc::clone(&pools),
            board: Arc::clone(&board),
            doors: Arc::clone(&doors),
            inbox,
            input: input.clone(),
        };
        let mut shard = Shard::new(booted, committer, executor, world);
        shard.tracing = Tracing::new(traces);
        shard.tell_pools();
        shard.publish();
        let thread = std::thread::Builder::new()
            .name("shard".to_owned())
            .spawn(move || shard.run())
            .map_err(system("starting the shard's thread"))?;
        Ok(Handle::new(Shared {
            input,
            board,
            doors,
            clock,
            prepare: Preparation {
                data_dir,
                sources,
                notices,
                pools,
            },
            shard: Mutex::new(Some(thread)),
            reader,
            settings,
        }))
    }
}
