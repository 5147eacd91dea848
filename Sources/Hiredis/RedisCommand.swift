// The writing half of RESP2: hiredis formats a command from its arguments (`redisFormatCommandArgv`).
//
// Swift cannot call C variadics, so commands are never built from a format string, which also means that no argument
// is ever taken for a directive. The arguments are collected in one reused block of bytes; a String for each of them
// would cost an allocation each.

import CHiredis
package import LinuxIO

/// One command under construction. Reuse one value for many commands: it keeps its memory.
@safe
package struct RedisCommand: ~Copyable {
    private var bytes = ByteBuffer()
    /// Where each argument ends in `bytes`.
    private var ends: [Int] = []
    private var pointers: [UnsafePointer<CChar>?] = unsafe []
    private var lengths: [Int] = []

    package init() {}

    /// How many arguments have been added, the command's name among them.
    package var argumentCount: Int { ends.count }

    /// Starts a command, dropping what was added before.
    package mutating func begin(_ name: StaticString) {
        bytes.clear()
        ends.removeAll(keepingCapacity: true)
        add(name)
    }

    package mutating func add(_ argument: StaticString) {
        bytes.append(argument)
        ends.append(bytes.count)
    }

    package mutating func add(_ argument: Span<UInt8>) {
        bytes.append(argument)
        ends.append(bytes.count)
    }

    package mutating func add(_ argument: [UInt8]) {
        bytes.append(argument)
        ends.append(bytes.count)
    }

    package mutating func add(_ argument: String) {
        bytes.append(argument)
        ends.append(bytes.count)
    }

    /// Adds a number in decimal digits.
    package mutating func add(decimal argument: Int64) {
        bytes.append(decimal: Int(argument))
        ends.append(bytes.count)
    }

    /// Adds one argument that `write` appends piece by piece.
    package mutating func add(_ write: (inout ByteBuffer) -> Void) {
        let start = bytes.count
        write(&bytes)
        precondition(bytes.count >= start, "an argument may only append")
        ends.append(bytes.count)
    }

    /// Appends the finished command in the form in which it travels.
    package mutating func append(to output: inout ByteBuffer) {
        precondition(!ends.isEmpty, "a command has a name")
        let count = ends.count
        unsafe pointers.removeAll(keepingCapacity: true)
        lengths.removeAll(keepingCapacity: true)
        unsafe Self.locate(bytes, ends, &pointers, &lengths)
        var formatted: UnsafeMutablePointer<CChar>? = nil
        let length = unsafe pointers.withUnsafeMutableBufferPointer { arguments in
            unsafe lengths.withUnsafeBufferPointer { lengths in
                unsafe redisFormatCommandArgv(&formatted, Int32(count), arguments.baseAddress, lengths.baseAddress)
            }
        }
        // hiredis fails only where malloc does, and there every allocation in Swift ends the process too.
        guard length >= 0, let formatted = unsafe formatted else { preconditionFailure("out of memory") }
        defer { unsafe redisFreeCommand(formatted) }
        unsafe formatted.withMemoryRebound(to: UInt8.self, capacity: Int(length)) { start in
            output.append(unsafe Span(_unsafeStart: start, count: Int(length)))
        }
    }

    /// The addresses of the arguments, which hold until `bytes` changes.
    private static func locate(
        _ bytes: borrowing ByteBuffer, _ ends: [Int], _ pointers: inout [UnsafePointer<CChar>?], _ lengths: inout [Int]
    ) {
        let span = bytes.bytes
        unsafe span.withUnsafeBufferPointer { buffer in
            let base = unsafe UnsafeRawPointer(buffer.baseAddress)
            var start = 0
            for end in ends {
                unsafe pointers.append(base.map { unsafe ($0 + start).assumingMemoryBound(to: CChar.self) })
                lengths.append(end - start)
                start = end
            }
        }
    }
}
