use crate::args::DemoArgs; use crate::failure::Failure; pub fn run(_: &DemoArgs) -> Result<(), Failure> { Ok(()) }
