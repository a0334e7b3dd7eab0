//! `clone3(2)` for a child that runs a function and never returns.

use std::arch::asm;
use std::ffi::c_long;

/// Calls `run` in a new process, on the stack that `arguments` names; returns the pid of the new process, or a negative
/// error number.
///
/// # Safety
/// All memory that `arguments` points to, the stack included, must stay valid until the child has executed another program
/// or exited.
pub(super) unsafe fn clone3<T>(
    arguments: &libc::clone_args,
    run: extern "C" fn(&T) -> !,
    child: &T,
) -> c_long {
    let made;
    // SAFETY: the parent goes on behind the call as behind any other; the child has a stack of its own and never comes
    // back. The kernel keeps every register but the three.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {child}",
            "call {run}",
            "2:",
            run = in(reg) run,
            child = in(reg) child,
            inlateout("rax") libc::SYS_clone3 => made,
            in("rdi") arguments,
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    // SAFETY: the same; the kernel keeps every register but the result's.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {child}",
            "blr {run}",
            "2:",
            run = in(reg) run,
            child = in(reg) child,
            inlateout("x0") arguments => made,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
        );
    }
    made
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("Firecracker runs on x86_64 and aarch64");
