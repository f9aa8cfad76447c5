//! What several test programs share: the simulator of the engine.
pub mod sim;
