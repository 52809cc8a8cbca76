//! One shard behind four doors: the engine as an application uses it, the engine behind this
//! project's REST layer, the component in its host, and the engine's Python package.

mod contestant;
pub mod engine;
pub mod hosted;
mod native;
mod python;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use edge_sync_host::{Component, ShardOptions};

pub use contestant::{Contestant, Found, Record, Result, Shape, State};
pub use engine::Engine;
pub use hosted::Hosted;
pub use native::Raw;
pub use python::Python;

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum ContestantKind {
    /// [`Raw`].
    Native,
    /// [`Engine`].
    Engine,
    /// [`Hosted`].
    Component,
    /// [`Python`].
    Python,
}

impl ContestantKind {
    /// As the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native qdrant-edge",
            Self::Engine => "native, behind the REST layer",
            Self::Component => "component in its host",
            Self::Python => "qdrant-edge-py",
        }
    }
}

/// What contestants are made with.
pub struct Contestants {
    /// The component, compiled.
    pub component: Option<Component>,
    /// A Python that has the package.
    pub python: Option<PathBuf>,
}

impl Contestants {
    /// Without Python there is one contestant less, and a message says why.
    pub fn find(component: Component) -> Self {
        Self {
            component: Some(component),
            python: python(),
        }
    }

    /// What one of them needs, and nothing else, so that only that takes time and memory.
    ///
    /// # Errors
    /// The component does not load, or there is no Python.
    pub fn only(kind: ContestantKind, component: Option<&Path>) -> Result<Self> {
        Ok(Self {
            component: match kind {
                ContestantKind::Component => Some(Component::load(Component::find(component)?)?),
                _ => None,
            },
            python: match kind {
                ContestantKind::Python => Some(Python::find()?),
                _ => None,
            },
        })
    }

    /// Who can take part here.
    pub fn kinds(&self) -> Vec<ContestantKind> {
        kinds(self.python.is_some())
    }

    /// The same, and nothing is loaded.
    pub fn find_kinds() -> Vec<ContestantKind> {
        kinds(python().is_some())
    }

    /// A new shard. `options` are for the component.
    ///
    /// # Errors
    /// Whatever its engine says.
    pub fn create(
        &self,
        kind: ContestantKind,
        directory: &Path,
        shape: Shape,
        options: &ShardOptions,
    ) -> Result<Box<dyn Contestant>> {
        Ok(match kind {
            ContestantKind::Native => Box::new(Raw::create(directory, shape)?),
            ContestantKind::Engine => Box::new(Engine::create(directory, shape)?),
            ContestantKind::Component => Box::new(Hosted::create(
                self.component()?,
                directory,
                shape,
                options.clone(),
            )?),
            ContestantKind::Python => Box::new(Python::create(self.python()?, directory, shape)?),
        })
    }

    /// A shard that is there.
    ///
    /// # Errors
    /// Whatever its engine says.
    pub fn open(
        &self,
        kind: ContestantKind,
        directory: &Path,
        options: &ShardOptions,
    ) -> Result<Box<dyn Contestant>> {
        Ok(match kind {
            ContestantKind::Native => Box::new(Raw::open(directory)?),
            ContestantKind::Engine => Box::new(Engine::open(directory)?),
            ContestantKind::Component => {
                Box::new(Hosted::open(self.component()?, directory, options.clone())?)
            }
            ContestantKind::Python => Box::new(Python::open(self.python()?, directory)?),
        })
    }

    /// Times a restore of a snapshot file into an empty directory.
    ///
    /// # Errors
    /// Whatever its engine says.
    pub fn restore(
        &self,
        kind: ContestantKind,
        snapshot: &Path,
        directory: &Path,
    ) -> Result<Duration> {
        match kind {
            ContestantKind::Native => Raw::restore(snapshot, directory),
            ContestantKind::Engine => Engine::restore(snapshot, directory),
            ContestantKind::Component => Hosted::restore(self.component()?, snapshot, directory),
            ContestantKind::Python => Python::restore(self.python()?, snapshot, directory),
        }
    }

    /// The component.
    ///
    /// # Errors
    /// It was not asked for.
    pub fn component(&self) -> Result<&Component> {
        self.component
            .as_ref()
            .ok_or_else(|| "the component is not loaded".into())
    }

    fn python(&self) -> Result<&Path> {
        self.python
            .as_deref()
            .ok_or_else(|| "there is no Python".into())
    }
}

/// A Python that has the package; a message says why there is none.
fn python() -> Option<PathBuf> {
    Python::find()
        .inspect_err(|why| eprintln!("without {}: {why}", ContestantKind::Python.name()))
        .ok()
}

fn kinds(has_python: bool) -> Vec<ContestantKind> {
    let mut kinds = vec![
        ContestantKind::Native,
        ContestantKind::Engine,
        ContestantKind::Component,
    ];
    kinds.extend(has_python.then_some(ContestantKind::Python));
    kinds
}
