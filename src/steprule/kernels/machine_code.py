"""Machine code: taken from Numba once, and run in later processes by LLVM's loader alone.

To load Numba takes longer than all else that a first step needs.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import re
from dataclasses import dataclass
from typing import Any, Final

import llvmlite
import llvmlite.binding as llvm

__all__ = ["Code", "assembled", "emitted", "host", "loaded"]

_engines: Final[list[Any]] = []  # machine code lives as long as the engine that holds it

# What Numba calls where a function has raised, and would have to be loaded for. A kernel raises nothing; one that did would
# end the process.
_RAISING: Final = (
    "NRT_Free",
    "NRT_MemInfo_call_dtor",
    "numba_do_raise",
    "numba_gil_ensure",
    "numba_gil_release",
    "numba_runtime_build_excinfo_struct",
    "numba_unpickle",
)
_UNREACHED: Final = re.compile(rf"^declare (.+) @({'|'.join(_RAISING)})\((.*?)\).*$", re.MULTILINE)
_ABORTING: Final = r"define internal \1 @\2(\3) {\n  call void @abort()\n  unreachable\n}"
_ABORT: Final = "declare void @abort()"


@dataclass(frozen=True)
class Code:
    """An object file with the C function `symbol`, which calls functions that the process has under the names `needs`."""

    symbol: str
    needs: tuple[str, ...]
    object: bytes


# What Numba reads of the environment that decides what it compiles to.
_SETTINGS: Final = (
    "CPU_NAME",
    "CPU_FEATURES",
    "ENABLE_AVX",
    "OPT",
    "LOOP_VECTORIZE",
    "SLP_VECTORIZE",
    "DISABLE_INTEL_SVML",
)


@functools.cache
def _features() -> str:
    """Return what the processor can do beyond its name; nothing on a system of which LLVM cannot tell, as Numba takes it."""
    try:
        return str(llvm.get_host_cpu_features().flatten())
    except RuntimeError:
        return ""


@functools.cache
def host() -> str:
    """Return what machine code is for: the processor and what it can do, the compilers' versions and their settings."""
    compilers = f"{importlib.metadata.version('numba')} {llvmlite.__version__}"
    settings = [os.environ.get(f"NUMBA_{name}") for name in _SETTINGS]
    return f"{compilers} {settings} {llvm.get_process_triple()} {llvm.get_host_cpu_name()} {_features()}"


def emitted(function: Any) -> Code:
    """Return the machine code of what `numba.cfunc` has made."""
    text, replaced = _UNREACHED.subn(_ABORTING, function.inspect_llvm())
    module = llvm.parse_assembly(text + (f"\n{_ABORT}\n" if replaced and _ABORT not in text else ""))
    module.verify()
    declared = [each.name for each in module.functions if each.is_declaration]
    needs = tuple(name for name in declared if not name.startswith("llvm."))
    return Code(function.native_name, needs, _machine().emit_object(module))


def loaded(code: Code) -> int:
    """Return the address of the function. Raises `OSError` where the process lacks what it needs."""
    engine = _engine("")  # which is what has LLVM look for functions in the process
    for name in code.needs:
        if llvm.address_of_symbol(name) is None:
            raise OSError(f"there is no function {name} for machine code to call")
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object))
    engine.finalize_object()
    return _address(engine, code.symbol)


def assembled(text: str, *symbols: str) -> dict[str, int]:
    """Return the addresses of the functions `symbols` of LLVM's assembly `text`."""
    engine = _engine(text)
    engine.finalize_object()
    return {symbol: _address(engine, symbol) for symbol in symbols}


def _engine(text: str) -> Any:
    _engines.append(llvm.create_mcjit_compiler(llvm.parse_assembly(text), _machine()))
    return _engines[-1]


def _address(engine: Any, symbol: str) -> int:
    address = int(engine.get_function_address(symbol))
    if not address:
        raise OSError(f"machine code has no function {symbol}")
    return address


def _machine() -> Any:
    # Early versions ask for this call, late ones refuse it.
    with contextlib.suppress(RuntimeError, AttributeError):
        llvm.initialize()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    # The code model is that of code which may lie far from what it calls, as Numba's.
    return target.create_target_machine(llvm.get_host_cpu_name(), _features(), opt=3, codemodel="jitdefault", jit=True)
