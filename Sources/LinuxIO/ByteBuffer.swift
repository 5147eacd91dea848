// The one place where bytes are kept. Everything above sees them as `Span<UInt8>`, whose bounds are checked.

import Glibc
public import Primitives

/// Bytes in one growing block of memory: appended at the end, consumed from the front.
///
/// An empty buffer that was never used, or was `release`d, owns no memory, so an idle connection costs none.
@safe
public struct ByteBuffer: ~Copyable {
    // Usable from inline code, so that the small steps below cost no call from other modules.
    @usableFromInline var base: UnsafeMutablePointer<UInt8>?
    @usableFromInline var start = 0
    @usableFromInline var end = 0
    @usableFromInline var allocated = 0

    @inlinable @inline(__always)
    public init() { unsafe base = nil }

    public init(capacity: Int) {
        self.init()
        reserve(capacity)
    }

    /// Most buffers that end own nothing: what they held was taken.
    @inlinable
    deinit {
        if unsafe base != nil { unsafe Self.giveBack(base) }
    }

    @usableFromInline @inline(never)
    static func giveBack(_ block: UnsafeMutablePointer<UInt8>?) { unsafe free(block) }

    /// Bytes held and not yet consumed.
    @inlinable @inline(__always)
    public var count: Int { end &- start }
    @inlinable @inline(__always)
    public var isEmpty: Bool { end == start }
    /// Bytes that fit without another block of memory.
    @inlinable @inline(__always)
    public var capacity: Int { allocated }

    /// The bytes held, oldest first.
    @inlinable
    public var bytes: Span<UInt8> {
        @_lifetime(borrow self)
        @inline(__always)
        get {
            let span =
                if let base = unsafe base {
                    unsafe Span(_unsafeStart: UnsafePointer(base + start), count: end - start)
                } else {
                    Span<UInt8>()
                }
            return unsafe _overrideLifetime(span, borrowing: self)
        }
    }

    /// Room behind the last byte.
    public var writable: Int { allocated - end }

    /// Makes room for `extra` more bytes, moving or growing the block where needed.
    @inlinable @inline(__always)
    public mutating func reserve(_ extra: Int) {
        if allocated &- end < extra { grow(extra) }
    }

    @usableFromInline @inline(never)
    mutating func grow(_ extra: Int) {
        precondition(extra >= 0)
        if start > 0 {
            if let base = unsafe base { unsafe memmove(base, base + start, end - start) }
            end -= start
            start = 0
            if allocated - end >= extra { return }
        }
        let wanted = max(end + extra, allocated * 2, 256)
        guard let moved = unsafe realloc(base, wanted) else { outOfMemory() }
        unsafe base = moved.assumingMemoryBound(to: UInt8.self)
        allocated = wanted
    }

    /// Like every allocation in Swift, one that the system refuses ends the process.
    private func outOfMemory() -> Never { preconditionFailure("out of memory") }

    @inlinable @inline(__always)
    public mutating func append(_ byte: UInt8) {
        reserve(1)
        unsafe base.unsafelyUnwrapped[end] = byte
        end += 1
    }

    @inlinable @inline(__always)
    public mutating func append(_ bytes: Span<UInt8>) {
        let n = bytes.count
        if n == 0 { return }
        reserve(n)
        let target = unsafe base.unsafelyUnwrapped + end
        unsafe bytes.withUnsafeBufferPointer { source in
            unsafe target.update(from: source.baseAddress.unsafelyUnwrapped, count: n)
        }
        end &+= n
    }

    @inlinable @inline(__always)
    public mutating func append(_ text: StaticString) {
        let n = text.utf8CodeUnitCount
        if n == 0 { return }
        reserve(n)
        unsafe (base.unsafelyUnwrapped + end).update(from: text.utf8Start, count: n)
        end &+= n
    }

    /// Disfavoured: a literal is a `StaticString`, whose bytes are known without a look into a string.
    @_disfavoredOverload
    public mutating func append(_ text: String) {
        var text = text
        text.withUTF8 { source in
            // An empty text may have an address, while a buffer that was never used has none.
            guard !source.isEmpty, let from = source.baseAddress else { return }
            reserve(source.count)
            unsafe memcpy(base.unsafelyUnwrapped + end, from, source.count)
            end += source.count
        }
    }

    @inlinable @inline(__always)
    public mutating func append(_ bytes: [UInt8]) { append(bytes.span) }

    /// Appends a number in decimal digits.
    public mutating func append(decimal value: Int) {
        if value < 0 { append(UInt8(ascii: "-")) }
        var magnitude = value.magnitude
        // 2^64 has 20 digits.
        reserve(20)
        let digits = Self.decimalDigits(magnitude)
        var i = end &+ digits
        end = i
        while magnitude >= 10 {
            i &-= 1
            let (quotient, remainder) = magnitude.quotientAndRemainder(dividingBy: 10)
            unsafe base.unsafelyUnwrapped[i] = 0x30 &+ UInt8(truncatingIfNeeded: remainder)
            magnitude = quotient
        }
        unsafe base.unsafelyUnwrapped[i &- 1] = 0x30 &+ UInt8(truncatingIfNeeded: magnitude)
    }

    @inline(__always)
    private static func decimalDigits(_ value: UInt) -> Int {
        if value < 10 { return 1 }
        if value < 100 { return 2 }
        if value < 1000 { return 3 }
        var digits = 4
        var rest = value / 10_000
        while rest > 0 {
            digits &+= 1
            rest /= 10
        }
        return digits
    }

    /// Appends a number in lower-case hexadecimal digits, without leading zeros unless `width` asks for them.
    public mutating func append(hexadecimal value: UInt64, width: Int = 1) {
        let digits = max(width, value == 0 ? 1 : (64 - value.leadingZeroBitCount + 3) / 4)
        reserve(digits)
        var rest = value
        var i = end &+ digits
        end = i
        for _ in 0..<digits {
            i &-= 1
            let nibble = UInt8(truncatingIfNeeded: rest & 15)
            unsafe base.unsafelyUnwrapped[i] = nibble &+ (nibble < 10 ? 0x30 : 0x57)
            rest >>= 4
        }
    }

    public mutating func append(_ address: IPAddress) {
        if address.family == .v4 {
            let bits = UInt32(truncatingIfNeeded: address.low)
            append(octet: UInt8(truncatingIfNeeded: bits >> 24))
            append(UInt8(ascii: "."))
            append(octet: UInt8(truncatingIfNeeded: bits >> 16))
            append(UInt8(ascii: "."))
            append(octet: UInt8(truncatingIfNeeded: bits >> 8))
            append(UInt8(ascii: "."))
            append(octet: UInt8(truncatingIfNeeded: bits))
        } else {
            append(address.description)
        }
    }

    @inline(__always)
    private mutating func append(octet: UInt8) {
        if octet >= 100 { append(0x30 &+ octet / 100) }
        if octet >= 10 { append(0x30 &+ octet / 10 % 10) }
        append(0x30 &+ octet % 10)
    }

    /// Drops the oldest `n` bytes.
    @inlinable @inline(__always)
    public mutating func consume(_ n: Int) {
        precondition(n >= 0 && n <= count)
        start += n
        if start == end {
            start = 0
            end = 0
        }
    }

    /// Drops every byte from position `n` on.
    @inlinable @inline(__always)
    public mutating func truncate(to n: Int) {
        precondition(n >= 0 && n <= count)
        end = start + n
    }

    /// Drops all bytes and keeps the memory.
    @inlinable @inline(__always)
    public mutating func clear() {
        start = 0
        end = 0
    }

    /// Drops all bytes and the memory.
    public mutating func release() {
        unsafe free(base)
        unsafe base = nil
        allocated = 0
        clear()
    }

    /// Lets `body` write up to `room` bytes, at least 1, behind the last one; what it returns is how many it wrote.
    @inline(__always)
    mutating func write(room: Int, _ body: (UnsafeMutablePointer<UInt8>) -> Int) -> Int {
        precondition(room > 0)
        reserve(room)
        let n = unsafe body(base.unsafelyUnwrapped + end)
        precondition(n >= 0 && n <= room)
        end += n
        return n
    }

    /// Writes over bytes that are already held, as for a length that is known only afterwards.
    public mutating func overwrite(at offset: Int, with byte: UInt8) {
        precondition(offset >= 0 && offset < count)
        unsafe base.unsafelyUnwrapped[start + offset] = byte
    }
}

extension ByteBuffer {
    /// Takes the buffer out of its place, which is empty meanwhile; `swap` puts it back. A buffer in an object that is lent
    /// to a call is watched by the run time until the call returns, and so is every access to it, wherever; one that was
    /// taken out is the caller's own.
    @inlinable @inline(__always)
    public mutating func take() -> ByteBuffer {
        var taken = ByteBuffer()
        swap(&taken, &self)
        return taken
    }
}

extension ByteBuffer {
    /// Writes several bytes over others that are already held.
    public mutating func overwrite(at offset: Int, with bytes: Span<UInt8>) {
        precondition(offset >= 0 && bytes.count <= count && offset <= count - bytes.count)
        guard let base = unsafe base else { return }
        let target = unsafe base + start + offset
        unsafe bytes.withUnsafeBufferPointer { source in
            guard let from = source.baseAddress else { return }
            _ = unsafe memcpy(target, from, source.count)
        }
    }
}

extension ByteBuffer {
    /// The bytes held as text; invalid UTF-8 is replaced. For logs and tests.
    public var text: String { String(decoding: array, as: UTF8.self) }

    public var array: [UInt8] {
        let bytes = self.bytes
        var copy: [UInt8] = []
        copy.reserveCapacity(bytes.count)
        for i in bytes.indices { copy.append(bytes[i]) }
        return copy
    }
}

extension Span where Element == UInt8 {
    /// Eight bytes at once, the first one lowest; bounds are checked as they are for one.
    @inlinable @inline(__always)
    public func word(at offset: Int) -> UInt64 {
        precondition(offset >= 0 && offset <= count &- 8)
        return unsafe withUnsafeBytes { bytes in
            unsafe UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
        }
    }
}
