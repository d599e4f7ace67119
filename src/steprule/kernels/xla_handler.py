"""What XLA calls on the CPU for a step: it hands the tensors of the call to a kernel, in the threads of XLA's own pool.

Numba compiles this file as it stands, through `steprule.kernels.cache`; the package does not import it. Numbers in it are
the offsets of XLA's C interface for foreign functions (`xla/ffi/api/c_api.h`, version 0), in words of 8 bytes.

A block of memory holds all that a call needs. The thread that XLA calls and each task in the pool have a share in it, and
who gives up the last one frees it: a task that the pool runs late, when the step is done, finds the gate closed and leaves.
Nobody waits for a task that has not begun, so that a pool whose threads are all in such calls cannot come to a stop.
"""

from numba import carray, cfunc, njit

from steprule.kernels.native import (
    add,
    call,
    copy_bytes,
    free,
    int32_at,
    int64_at,
    malloc,
    sched_yield,
)

# Words of a block before its arrays.
ENTERED, LEFT, RELEASED, SHARES, KERNEL, LAUNCH, CLAIMED, HEAD = 0, 1, 2, 3, 4, 5, 13, 14
CLOSED = 1 << 40

# Words of XLA's structures.
EXTENSION, API, CONTEXT, ARGUMENTS, POINTERS, RESULTS = 1, 2, 3, 7, 9, 14
DATA, RANK, DIMENSIONS = 3, 4, 5
ERROR_DESTROY, SCHEDULE, NUMBER_OF_THREADS = 8, 17, 18
METADATA = 1


@njit
def release(block):
    shares = carray(int64_at(block), HEAD)[SHARES]
    if add(int64_at(block + 8 * RELEASED), 1) == shares - 1:
        free(block)


@cfunc("intp(intp)", error_model="numpy")
def help(block):
    """Take part in the step of a block, if it still goes on."""
    words = carray(int64_at(block), HEAD)
    if add(int64_at(block + 8 * ENTERED), 1) < CLOSED:
        call(words[KERNEL], block + 8 * LAUNCH)
        add(int64_at(block + 8 * LEFT), 1)
    release(block)
    return 0


@njit
def say_version(api, extension):
    """Tell XLA that this keeps to its own version of the interface: within version 0 nothing was moved."""
    metadata = carray(int64_at(carray(int64_at(extension), 4)[3]), 5)
    # jaxlib 0.5 asks without saying which its own is.
    minor = carray(int32_at(api), 10)[9] if api != 0 else 1
    version = carray(int32_at(carray(int64_at(extension), 4)[3]), 10)
    metadata[2] = 0
    version[6], version[7], version[8] = 0, minor, 0


@njit
def number_of_threads(api, context):
    found = 1
    answer = malloc(8 * 5)
    words = carray(int64_at(answer), 5)
    words[0], words[1], words[2], words[3], words[4] = 32, 0, context, answer + 32, 1
    error = call(carray(int64_at(api), 19)[NUMBER_OF_THREADS], answer)
    if error == 0:
        found = words[4]
    else:
        destroy(api, error)
    free(answer)
    return found


@njit
def destroy(api, error):
    given = malloc(24)
    words = carray(int64_at(given), 3)
    words[0], words[1], words[2] = 24, 0, error
    call(carray(int64_at(api), 19)[ERROR_DESTROY], given)
    free(given)


@njit
def schedule(api, context, task, block):
    given = malloc(40)
    words = carray(int64_at(given), 5)
    words[0], words[1], words[2], words[3], words[4] = 40, 0, context, task, block
    error = call(carray(int64_at(api), 19)[SCHEDULE], given)
    free(given)
    if error != 0:
        destroy(api, error)
        release(block)


@njit
def size_of(buffer):
    words = carray(int64_at(buffer), 6)
    size = 1
    dimensions = carray(int64_at(words[DIMENSIONS]), words[RANK])
    for length in dimensions:
        size *= length
    return size


@njit
def fill(block, layout, arguments, results, tensors, chunk):
    """Write the launch of `chunks.LAUNCH_FIELDS`, and what it points to; return the number of chunks."""
    inputs, arrays, outputs = layout[0], layout[1], layout[2]
    pointers = block + 8 * HEAD
    zeros = pointers + 8 * tensors * arrays
    chunks = zeros + 8 * tensors
    table = carray(int64_at(pointers), tensors * arrays)
    nothing = carray(int64_at(zeros), tensors)
    number = 0
    for tensor in range(tensors):
        nothing[tensor] = 0
        first = 2 + tensor * inputs
        size = size_of(arguments[first])
        for column in range(inputs):
            table[tensor * arrays + column] = carray(int64_at(arguments[first + column]), 4)[DATA]
        for output in range(outputs):
            column, itemsize = layout[3 + 2 * output], layout[4 + 2 * output]
            to = carray(int64_at(results[tensor * outputs + output]), 4)[DATA]
            # XLA puts a result in the place of its input, as it was told, unless it cannot.
            if column < inputs and table[tensor * arrays + column] != to:
                copy_bytes(to, table[tensor * arrays + column], size * itemsize)
            table[tensor * arrays + column] = to
        for begin in range(0, size, chunk):
            row = carray(int64_at(chunks + 24 * number), 3)
            row[0], row[1], row[2] = tensor, begin, min(chunk, size - begin)
            number += 1
    launch = carray(int64_at(block + 8 * LAUNCH), 8)
    launch[0], launch[1], launch[2], launch[3] = block + 8 * CLAIMED, chunks, number, pointers
    launch[4] = launch[6] = launch[7] = zeros
    launch[5] = carray(int64_at(arguments[1]), 4)[DATA]
    return number


@cfunc("intp(intp, intp, intp, intp)", error_model="numpy")
def serve(frame, kernel, task, chunk):
    """Make the step that XLA asks for by its call frame.

    Its arguments are the layout (int32: the numbers of inputs, of arrays and of outputs, then for each output its column and
    the bytes of an element), the scalars, and for each tensor its inputs; its results are for each tensor its outputs.
    """
    call_frame = carray(int64_at(frame), 16)
    api, context, extension = call_frame[API], call_frame[CONTEXT], call_frame[EXTENSION]
    if extension != 0 and carray(int32_at(extension), 3)[2] == METADATA:
        say_version(api, extension)
        return 0
    arguments = carray(int64_at(call_frame[POINTERS]), call_frame[ARGUMENTS])
    results = carray(int64_at(call_frame[RESULTS]), 1 << 40)
    layout = carray(int32_at(carray(int64_at(arguments[0]), 4)[DATA]), 1 << 20)
    tensors = (call_frame[ARGUMENTS] - 2) // layout[0]
    chunks = 0
    for tensor in range(tensors):
        chunks += (size_of(arguments[2 + tensor * layout[0]]) + chunk - 1) // chunk
    block = malloc(8 * (HEAD + tensors * layout[1] + tensors + 3 * chunks))
    words = carray(int64_at(block), HEAD)
    words[ENTERED] = words[LEFT] = words[RELEASED] = words[CLAIMED] = 0
    words[KERNEL] = kernel
    fill(block, layout, arguments, results, tensors, chunk)
    helpers = min(number_of_threads(api, context), chunks) - 1 if chunks > 1 else 0
    words[SHARES] = helpers + 1
    for _ in range(helpers):
        schedule(api, context, task, block)
    call(kernel, block + 8 * LAUNCH)
    entered = add(int64_at(block + 8 * ENTERED), CLOSED)
    while add(int64_at(block + 8 * LEFT), 0) < entered:
        sched_yield()
    release(block)
    return 0
