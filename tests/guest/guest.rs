//! The smallest guest that shows a boot: prints one line on the serial port and resets the machine.
//!
//! Built by one call of rustc (`testkit::build::guests`), not part of the workspace's build. Firecracker enters it as the
//! Linux 64-bit boot protocol says: long mode, the first GiB mapped to itself, a GDT, a stack, interrupts off. Three
//! kernels come of it, by `--cfg`:
//!
//! | cfg | after the line |
//! |---|---|
//! | none | resets at once: Firecracker exits 0 |
//! | `idle` | sleeps; resets when Ctrl+Alt+Del arrives |
//! | `deaf` | sleeps for ever, interrupts off: only a signal ends it |
//!
//! The latter two carry their name as text, by which the VMM stand-in knows what to act.

#![no_std]
#![no_main]

use core::arch::global_asm;
use core::panic::PanicInfo;

global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start:",
    "    jmp before",
    "print:",
    "    lea rsi, [rip + line]",
    "    mov dx, 0x3f8", // the UART's transmit register; an emulated one is always ready
    "1:  lodsb",
    "    test al, al",
    "    jz after",
    "    out dx, al",
    "    jmp 1b",
    "line:",
    "    .asciz \"microvm-runtime guest: hello from ring 0\\n\"",
    "reset:",
    "    mov al, 0xfe", // the keyboard controller's \"pulse the reset line\"
    "    out 0x64, al",
    "halt:",
    "    hlt",
    "    jmp halt",
);

#[cfg(not(idle))]
global_asm!("before: jmp print");

#[cfg(not(any(idle, deaf)))]
global_asm!("after: jmp reset");

#[cfg(deaf)]
global_asm!("after: cli", "    jmp halt", "    .ascii \"(deaf)\"");

// The keyboard interrupt, IRQ 1, comes through the old interrupt controller at vector 0x21: the one gate that is
// filled in. The keys are not looked at: Ctrl+Alt+Del is all this keyboard ever sends. Before the line, for whoever has read
// it may press them at once, and initialising the controller forgets what came before.
#[cfg(idle)]
global_asm!(
    ".equ idt, 0x200000", // free, zeroed memory
    ".macro port number, value",
    "    mov al, \\value",
    "    out \\number, al",
    ".endm",
    "before:",
    "    lea rax, [rip + reset]",
    "    mov rdi, offset idt + 0x21 * 16",
    "    mov [rdi], ax", // handler, bits 0 to 15
    "    mov [rdi + 2], cs",
    "    mov word ptr [rdi + 4], 0x8e00", // present, interrupt gate
    "    shr rax, 16",
    "    mov [rdi + 6], ax", // handler, bits 16 to 31
    "    mov rax, offset idt",
    "    push rax",
    "    sub rsp, 2",
    "    mov word ptr [rsp], 0x22 * 16 - 1",
    "    lidt [rsp]",
    "    port 0x20, 0x11", // initialise
    "    port 0x21, 0x20", // IRQ 0 becomes vector 0x20
    "    port 0x21, 0x04", // a second controller at input 2
    "    port 0x21, 0x01", // 8086 mode
    "    port 0x21, 0xfd", // all masked but IRQ 1
    "    port 0xa1, 0xff",
    "    jmp print",
    "after:",
    "    sti",
    "    jmp halt",
    "    .ascii \"(idle)\"",
);

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}
