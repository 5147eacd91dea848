// The one place where bytes are kept. Everything above sees them as `Span<UInt8>`, whose bounds are checked.

import Glibc
package import Primitives

/// Bytes in one growing block of memory: appended at the end, consumed from the front.
///
/// An empty buffer that was never used, or was `release`d, owns no memory, so an idle connection costs none.
@safe
package struct ByteBuffer: ~Copyable {
    // Usable from inline code, so that the small steps below cost no call from other modules.
    @usableFromInline var base: UnsafeMutablePointer<UInt8>?
    @usableFromInline var start = 0
    @usableFromInline var end = 0
    package private(set) var capacity = 0

    package init() { unsafe base = nil }

    package init(capacity: Int) {
        self.init()
        reserve(capacity)
    }

    deinit { unsafe free(base) }

    /// Bytes held and not yet consumed.
    @inlinable
    package var count: Int { end - start }
    @inlinable
    package var isEmpty: Bool { end == start }

    /// The bytes held, oldest first.
    package var bytes: Span<UInt8> {
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
    package var writable: Int { capacity - end }

    /// Makes room for `extra` more bytes, moving or growing the block where needed.
    @inline(__always)
    package mutating func reserve(_ extra: Int) {
        if capacity - end < extra { grow(extra) }
    }

    @inline(never)
    private mutating func grow(_ extra: Int) {
        precondition(extra >= 0)
        if start > 0 {
            if let base = unsafe base { unsafe memmove(base, base + start, end - start) }
            end -= start
            start = 0
            if capacity - end >= extra { return }
        }
        let wanted = max(end + extra, capacity * 2, 256)
        guard let moved = unsafe realloc(base, wanted) else { outOfMemory() }
        unsafe base = moved.assumingMemoryBound(to: UInt8.self)
        capacity = wanted
    }

    /// Like every allocation in Swift, one that the system refuses ends the process.
    private func outOfMemory() -> Never { preconditionFailure("out of memory") }

    @inline(__always)
    package mutating func append(_ byte: UInt8) {
        reserve(1)
        unsafe base.unsafelyUnwrapped[end] = byte
        end += 1
    }

    @inline(__always)
    package mutating func append(_ bytes: Span<UInt8>) {
        let n = bytes.count
        if n == 0 { return }
        reserve(n)
        let target = unsafe base.unsafelyUnwrapped + end
        unsafe bytes.withUnsafeBufferPointer { source in
            _ = unsafe memcpy(target, source.baseAddress.unsafelyUnwrapped, n)
        }
        end += n
    }

    @inline(__always)
    package mutating func append(_ text: StaticString) {
        let n = text.utf8CodeUnitCount
        if n == 0 { return }
        reserve(n)
        unsafe memcpy(base.unsafelyUnwrapped + end, text.utf8Start, n)
        end += n
    }

    package mutating func append(_ text: String) {
        var text = text
        text.withUTF8 { source in
            // An empty text may have an address, while a buffer that was never used has none.
            guard !source.isEmpty, let from = source.baseAddress else { return }
            reserve(source.count)
            unsafe memcpy(base.unsafelyUnwrapped + end, from, source.count)
            end += source.count
        }
    }

    package mutating func append(_ bytes: [UInt8]) { append(bytes.span) }

    /// Appends a number in decimal digits.
    package mutating func append(decimal value: Int) {
        if value < 0 {
            append(UInt8(ascii: "-"))
        }
        var magnitude = value.magnitude
        var digits = 1
        var bound: UInt = 10
        while digits < 20, magnitude >= bound {
            digits += 1
            let (next, overflow) = bound.multipliedReportingOverflow(by: 10)
            if overflow { break }
            bound = next
        }
        reserve(digits)
        var i = end + digits
        end = i
        repeat {
            i -= 1
            unsafe base.unsafelyUnwrapped[i] = 0x30 + UInt8(truncatingIfNeeded: magnitude % 10)
            magnitude /= 10
        } while magnitude > 0
    }

    /// Appends a number in lower-case hexadecimal digits, without leading zeros unless `width` asks for them.
    package mutating func append(hexadecimal value: UInt64, width: Int = 1) {
        let digits = max(width, value == 0 ? 1 : (64 - value.leadingZeroBitCount + 3) / 4)
        reserve(digits)
        for i in 0..<digits {
            let shift = 4 * (digits - 1 - i)
            let nibble = shift >= 64 ? 0 : UInt8(truncatingIfNeeded: value >> UInt64(shift) & 15)
            append(nibble < 10 ? 0x30 + nibble : 0x61 + nibble - 10)
        }
    }

    package mutating func append(_ address: IPAddress) {
        if address.family == .v4 {
            append(decimal: Int(address.low >> 24 & 255))
            append(UInt8(ascii: "."))
            append(decimal: Int(address.low >> 16 & 255))
            append(UInt8(ascii: "."))
            append(decimal: Int(address.low >> 8 & 255))
            append(UInt8(ascii: "."))
            append(decimal: Int(address.low & 255))
        } else {
            append(address.description)
        }
    }

    /// Drops the oldest `n` bytes.
    @inline(__always)
    package mutating func consume(_ n: Int) {
        precondition(n >= 0 && n <= count)
        start += n
        if start == end {
            start = 0
            end = 0
        }
    }

    /// Drops every byte from position `n` on.
    package mutating func truncate(to n: Int) {
        precondition(n >= 0 && n <= count)
        end = start + n
    }

    /// Drops all bytes and keeps the memory.
    @inlinable
    package mutating func clear() {
        start = 0
        end = 0
    }

    /// Drops all bytes and the memory.
    package mutating func release() {
        unsafe free(base)
        unsafe base = nil
        capacity = 0
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
    package mutating func overwrite(at offset: Int, with byte: UInt8) {
        precondition(offset >= 0 && offset < count)
        unsafe base.unsafelyUnwrapped[start + offset] = byte
    }
}

extension ByteBuffer {
    /// Writes several bytes over others that are already held.
    package mutating func overwrite(at offset: Int, with bytes: Span<UInt8>) {
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
    package var text: String { String(decoding: array, as: UTF8.self) }

    package var array: [UInt8] {
        let bytes = self.bytes
        var copy: [UInt8] = []
        copy.reserveCapacity(bytes.count)
        for i in bytes.indices { copy.append(bytes[i]) }
        return copy
    }
}
