import CHiredis
import Glibc
package import LinuxIO

/// Writes Redis commands through hiredis's formatter, argument by argument, into one buffer.
///
/// Arguments are gathered in storage that is reused, so a command costs no allocation of ours.
@safe
package struct CommandWriter: ~Copyable {
    /// The commands written so far, ready to be sent.
    package var output = ByteBuffer()

    private var bytes = ByteBuffer(capacity: 512)
    private var ends: [Int] = []
    private var pointers: UnsafeMutablePointer<UnsafePointer<CChar>?>
    private var lengths: UnsafeMutablePointer<Int>
    private var room = 64
    /// Commands without arguments, formatted once.
    private var fixed: (multi: [UInt8], exec: [UInt8], time: [UInt8]) = ([], [], [])

    package init() {
        unsafe pointers = .allocate(capacity: room)
        unsafe lengths = .allocate(capacity: room)
        ends.reserveCapacity(room)
        fixed = (formatted("MULTI"), formatted("EXEC"), formatted("TIME"))
    }

    private mutating func formatted(_ word: StaticString) -> [UInt8] {
        add(word)
        end()
        let command = output.array
        output.clear()
        return command
    }

    deinit {
        unsafe pointers.deallocate()
        unsafe lengths.deallocate()
    }

    // MARK: Whole commands

    package mutating func multi() { output.append(fixed.multi) }
    package mutating func exec() { output.append(fixed.exec) }
    package mutating func time() { output.append(fixed.time) }

    // MARK: Arguments

    @inline(__always)
    package mutating func add(_ text: StaticString) {
        bytes.append(text)
        ends.append(bytes.count)
    }

    package mutating func add(_ text: String) {
        bytes.append(text)
        ends.append(bytes.count)
    }

    package mutating func add(_ span: Span<UInt8>) {
        bytes.append(span)
        ends.append(bytes.count)
    }

    package mutating func add(_ number: Int64) {
        bytes.append(decimal: Int(number))
        ends.append(bytes.count)
    }

    /// An argument put together by `body`.
    @inline(__always)
    package mutating func add(_ body: (inout ByteBuffer) -> Void) {
        body(&bytes)
        ends.append(bytes.count)
    }

    /// Ends the command: all arguments since the last `end` become one.
    package mutating func end() {
        let count = ends.count
        guard count > 0 else { return }
        if count > room {
            unsafe pointers.deallocate()
            unsafe lengths.deallocate()
            room = count * 2
            unsafe pointers = .allocate(capacity: room)
            unsafe lengths = .allocate(capacity: room)
        }
        format(count)
        bytes.clear()
        ends.removeAll(keepingCapacity: true)
    }

    private mutating func format(_ count: Int) {
        let pointers = unsafe self.pointers
        let lengths = unsafe self.lengths
        let ends = self.ends
        unsafe bytes.bytes.withUnsafeBytes { raw in
            var start = 0
            for i in 0..<count {
                // An empty argument needs a pointer all the same.
                unsafe pointers[i] = raw.baseAddress.map {
                    unsafe UnsafePointer(($0 + start).assumingMemoryBound(to: CChar.self))
                }
                unsafe lengths[i] = ends[i] - start
                start = ends[i]
            }
        }
        // The variant that builds an sds string: the other one calls sprintf for each argument, at five times the cost.
        var command: UnsafeMutablePointer<CChar>? = nil
        let length = unsafe redisFormatSdsCommandArgv(&command, Int32(count), pointers, lengths)
        guard length > 0, let text = unsafe command else { preconditionFailure("out of memory") }
        let formatted = unsafe UnsafeRawBufferPointer(start: text, count: Int(length))
        unsafe output.append(Span(_unsafeBytes: formatted))
        unsafe redisFreeSdsCommand(text)
    }
}
