//! Instruction sets: what a kernel is compiled for, and the one place where one is chosen at run time.
//!
//! Kernels are plain loops over arrays of constant length, generic over a [`Machine`]. [`stamped!`] compiles such a body
//! once for each instruction set, inside a function that has its features enabled, and calls the one an [`Isa`] names.

// What is inlined into a function with a target feature is compiled with it, and only that is.
#![allow(clippy::inline_always)]

use std::sync::OnceLock;
use tilewright_attention::AttentionError;

/// The environment variable that names the instruction set of whoever doesn't ask for one.
pub const ISA_VARIABLE: &str = "TILEWRIGHT_CPU_ISA";

/// An instruction set that this machine has. Those with fused multiply-adds (all but `portable`) give the same bits.
///
/// ```
/// use tilewright_cpu::{CpuAttention, Isa};
/// assert!(Isa::available().contains(&Isa::best()));
/// let portable = Isa::named("portable").expect("every machine has it");
/// let method = CpuAttention::default().with_isa(portable);
/// assert_eq!(method.isa()?.name(), "portable");
/// # Ok::<(), tilewright_attention::AttentionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Isa(Level);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl Isa {
    /// What this machine has, the widest last.
    pub fn available() -> Vec<Self> {
        let mut levels = vec![Level::Portable];
        #[cfg(target_arch = "aarch64")]
        levels.push(Level::Neon);
        #[cfg(target_arch = "x86_64")]
        {
            let (avx2, fma) = (std::arch::is_x86_feature_detected!("avx2"), std::arch::is_x86_feature_detected!("fma"));
            let avx2 = avx2 && fma && std::arch::is_x86_feature_detected!("f16c");
            if avx2 {
                levels.push(Level::Avx2);
            }
            let (f, vl) =
                (std::arch::is_x86_feature_detected!("avx512f"), std::arch::is_x86_feature_detected!("avx512vl"));
            let (bw, dq) =
                (std::arch::is_x86_feature_detected!("avx512bw"), std::arch::is_x86_feature_detected!("avx512dq"));
            if avx2 && f && vl && bw && dq {
                levels.push(Level::Avx512);
            }
        }
        levels.into_iter().map(Self).collect()
    }

    /// The widest this machine has.
    pub fn best() -> Self {
        static BEST: OnceLock<Isa> = OnceLock::new();
        *BEST.get_or_init(|| Self::available().pop().unwrap_or(Self(Level::Portable)))
    }

    /// The one of this name, if this machine has it: `portable`, `avx2`, `avx512`, `neon`.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|isa| isa.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Level::Neon => "neon",
        }
    }

    /// The one [`ISA_VARIABLE`] names, or else the best.
    pub(crate) fn from_environment() -> Result<Self, AttentionError> {
        let Ok(name) = std::env::var(ISA_VARIABLE) else { return Ok(Self::best()) };
        Self::named(&name).ok_or_else(|| {
            let names: Vec<_> = Self::available().into_iter().map(Self::name).collect();
            AttentionError::Spec { field: ISA_VARIABLE, got: name, expected: format!("one of {}", names.join(", ")) }
        })
    }

    pub(crate) fn level(self) -> Level {
        self.0
    }

    /// Whether there is an instruction that multiplies pairs of `bf16` and adds them up (AVX512_BF16), beside this instruction
    /// set's own: [`Bf16Products::Auto`](crate::Bf16Products) then takes it.
    pub fn multiplies_pairs(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Level::Avx512 && std::arch::is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// Elements of so many bytes in a register tile's row.
    pub(crate) fn panel(self, bytes: usize) -> usize {
        let [vector, vectors] = self.registers();
        vector / bytes * vectors
    }

    /// Elements of so many bytes in a vector.
    pub(crate) fn unit(self, bytes: usize) -> usize {
        self.registers()[0] / bytes
    }

    fn registers(self) -> [usize; 2] {
        fn of<M: Machine>() -> [usize; 2] {
            [M::VECTOR, M::VECTORS]
        }
        match self.0 {
            Level::Portable => of::<Portable>(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => of::<Avx2>(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => of::<Avx512>(),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => of::<Neon>(),
        }
    }
}

/// What a kernel's body asks of the machine it is compiled for.
pub(crate) trait Machine {
    /// Whether `x·y + z` rounds once.
    const FUSED: bool;
    /// Bytes of a vector register.
    const VECTOR: usize;
    /// Vectors to a row of a register tile: with six rows, as many as the registers hold beside the operands.
    const VECTORS: usize;
    /// Whether there are instructions that widen eight 16-bit numbers (those of AVX2 and F16C).
    const WIDENS: bool;
    /// Whether there are instructions that round to pairs of `bf16` and multiply them (those of AVX512_BF16).
    const PAIRS: bool;
}

macro_rules! machine {
    ($(#[$attribute:meta])* $name:ident, $fused:literal, $vector:literal, $vectors:literal, $widens:literal, $pairs:literal) => {
        $(#[$attribute])*
        pub(crate) struct $name;
        $(#[$attribute])*
        impl Machine for $name {
            const FUSED: bool = $fused;
            const VECTOR: usize = $vector;
            const VECTORS: usize = $vectors;
            const WIDENS: bool = $widens;
            const PAIRS: bool = $pairs;
        }
    };
}

machine!(Portable, false, 16, 2, false, false);
machine!(
    #[cfg(target_arch = "x86_64")]
    Avx2,
    true,
    32,
    2,
    true,
    false
);
machine!(
    #[cfg(target_arch = "x86_64")]
    Avx512,
    true,
    64,
    4,
    true,
    false
);
machine!(
    /// The same with AVX512_BF16; only kernels of pairs are compiled for it.
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16,
    true,
    64,
    4,
    true,
    true
);
machine!(
    #[cfg(target_arch = "aarch64")]
    Neon,
    true,
    16,
    4,
    false,
    false
);

/// Declares `fn name(isa, …)`, which runs `body::<A, …, M>` compiled for `isa`; `A, …` is what the kernel is generic over.
macro_rules! stamped {
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident $(<$($of:ident: $bound:path),+>)? ($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $body:ident
    ) => {
        $(#[$doc])*
        $vis fn $name$(<$($of: $bound),+>)?(isa: $crate::attention::isa::Isa, $($arg: $type),*) $(-> $ret)? {
            use $crate::attention::isa::{self, Level};
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
            fn avx512$(<$($of: $bound),+>)?($($arg: $type),*) $(-> $ret)? {
                $body::<$($($of,)+)? isa::Avx512>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2$(<$($of: $bound),+>)?($($arg: $type),*) $(-> $ret)? {
                $body::<$($($of,)+)? isa::Avx2>($($arg),*)
            }
            match isa.level() {
                Level::Portable => $body::<$($($of,)+)? isa::Portable>($($arg),*),
                #[cfg(target_arch = "aarch64")]
                Level::Neon => $body::<$($($of,)+)? isa::Neon>($($arg),*),
                // SAFETY: these functions require their features and nothing else, and an `Isa` exists only for
                // what this machine was found to have.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512($($arg),*) },
            }
        }
    };
}
pub(crate) use stamped;

/// The same for a kernel of pairs of `bf16`, which is compiled for the instructions for them too.
macro_rules! stamped_for_pairs {
    (
        $(#[$doc:meta])*
        $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $body:ident
    ) => {
        $(#[$doc])*
        $vis fn $name(isa: $crate::attention::isa::Isa, $($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512bf16,avx2,fma,f16c")]
            fn native($($arg: $type),*) {
                $body::<$crate::attention::isa::Avx512Bf16>($($arg),*);
            }
            $crate::attention::isa::stamped! {
                fn emulated($($arg: $type),*) = $body
            }
            #[cfg(target_arch = "x86_64")]
            if isa.multiplies_pairs() {
                // SAFETY: it requires its features, which this machine was found to have, and nothing else.
                return unsafe { native($($arg),*) };
            }
            emulated(isa, $($arg),*);
        }
    };
}
pub(crate) use stamped_for_pairs;
