// The program that libFuzzer drives: `SLUICE_FUZZ_TARGET=… fuzz [options of libFuzzer]`. Built by scripts/fuzz only.

import CFuzzer
import Glibc

private nonisolated(unsafe) var check: ([UInt8]) throws -> Void = { _ in }

/// A finding ends the process as a trap does, so that libFuzzer keeps the input.
private func take(_ data: UnsafePointer<UInt8>?, _ size: Int) -> Int32 {
    let input = unsafe Array(UnsafeBufferPointer(start: data, count: size))
    do {
        try unsafe check(input)
    } catch {
        fatalError("\(error)")
    }
    return 0
}

// An environment variable names the target: libFuzzer starts itself again with the same words, for merging.
guard let name = unsafe getenv("SLUICE_FUZZ_TARGET").map({ unsafe String(cString: $0) }) else {
    print(fuzzTargets.map(\.name).joined(separator: "\n"))
    exit(0)
}
guard let target = fuzzTargets.first(where: { $0.name == name }) else { fatalError("there is no target \(name)") }
do {
    unsafe check = try target.make()
} catch {
    fatalError("\(error)")
}
var count = CommandLine.argc
var words: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = unsafe CommandLine.unsafeArgv
exit(unsafe LLVMFuzzerRunDriver(&count, &words, { data, size in unsafe take(data, size) }))
