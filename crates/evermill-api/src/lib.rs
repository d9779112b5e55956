//! **Tells** people and programs what there is. Nothing here changes state except through the
//! engine's handle.

pub mod drawing;
pub mod live;
