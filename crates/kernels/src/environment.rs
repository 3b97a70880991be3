//! The floating-point environment that everything here is computed in: round to nearest even, subnormals kept, no traps.
//!
//! A library that was built to be fast and loose may leave its process flushing subnormals to zero: bits 15 (flush) and 6
//! (subnormals are zeros) of MXCSR on x86-64. The register belongs to a thread, and a new thread takes it from the one that
//! starts it. On other CPUs the environment is taken as it is.

/// Runs something with subnormals kept and rounding to nearest even, and leaves the thread's environment as it was.
pub fn with_default_floats<T>(run: impl FnOnce() -> T) -> T {
    let _restored = Environment::default_until_dropped();
    apart(run)
}

/// A call of its own: arithmetic is not kept from moving over the instructions that change the environment, but calls are.
#[inline(never)]
fn apart<T>(run: impl FnOnce() -> T) -> T {
    std::hint::black_box(run())
}

/// The environment to return to.
struct Environment {
    #[cfg(target_arch = "x86_64")]
    before: Option<u32>,
}

#[cfg(target_arch = "x86_64")]
mod register {
    use std::arch::asm;

    /// Exceptions masked, everything else as IEEE 754 has it; the flags of past exceptions are no part of it.
    pub(super) const DEFAULT: u32 = 0x1f80;
    /// The flags of past exceptions.
    pub(super) const FLAGS: u32 = 0x3f;

    pub(super) fn read() -> u32 {
        let mut value = 0u32;
        // SAFETY: stores MXCSR, four bytes, in the variable that the address is of.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut value, options(nostack, preserves_flags)) };
        value
    }

    pub(super) fn write(value: u32) {
        // SAFETY: `value` was read from MXCSR or is DEFAULT, so no reserved bit is set; the environment is Rust's own after it,
        // or the one that the thread had before.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &value, options(nostack, preserves_flags, readonly)) };
    }
}

#[cfg(target_arch = "x86_64")]
impl Environment {
    fn default_until_dropped() -> Self {
        let now = register::read();
        let differs = (now | register::FLAGS) != (register::DEFAULT | register::FLAGS);
        if differs {
            register::write(register::DEFAULT);
        }
        Self { before: differs.then_some(now) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for Environment {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            register::write(before);
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl Environment {
    fn default_until_dropped() -> Self {
        Self {}
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use std::hint::black_box;

    /// Half of the smallest normal number: a subnormal, or zero where they are flushed.
    fn halved() -> f32 {
        black_box(f32::MIN_POSITIVE) * black_box(0.5)
    }

    #[test]
    fn a_host_that_flushes_subnormals_changes_nothing_and_gets_its_environment_back() {
        let before = register::read();
        let flushing = (before & !register::FLAGS) | 1 << 15 | 1 << 6;
        register::write(flushing);
        let (outside, inside) = (halved(), with_default_floats(halved));
        let caught = std::panic::catch_unwind(|| with_default_floats(|| panic!("within")));
        let after = register::read();
        register::write(before);
        assert_eq!((outside, inside), (0.0, f32::MIN_POSITIVE / 2.0));
        assert!(caught.is_err());
        assert_eq!(after & !register::FLAGS, flushing);
    }

    #[test]
    fn nested_environments_end_in_order() {
        let before = register::read() & !register::FLAGS;
        assert_eq!(with_default_floats(|| with_default_floats(halved)), f32::MIN_POSITIVE / 2.0);
        assert_eq!(register::read() & !register::FLAGS, before);
    }
}
