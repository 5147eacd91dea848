// gzip (RFC 1952) as a stream: bytes in, bytes out, nothing kept but zlib's own window.

import CZlib
package import LinuxIO

@safe
package final class GzipStream {
    package enum Flush: Sendable {
        /// zlib may keep what it likes for better compression.
        case none
        /// Everything so far can be read by the other side.
        case sync
        /// The stream ends.
        case finish
    }

    // zlib's state points back at this, so it must not move.
    private let stream: UnsafeMutablePointer<z_stream>
    private let scratch: UnsafeMutablePointer<UInt8>
    package let level: Int
    /// Whether anything has been taken since the last flush.
    package private(set) var owesFlush = false

    private static let scratchSize = 16 << 10
    /// What one takes: zlib's window of 32 KiB and its tables (zconf.h: `(1 << (windowBits + 2)) + (1 << (memLevel + 9))`),
    /// and the scratch.
    package static let bytes = (1 << 17) + (1 << 17) + scratchSize

    /// `nil` where memory is short.
    package init?(level: Int) {
        guard let stream = unsafe sluice_gzip_new(Int32(level)) else { return nil }
        unsafe self.stream = stream
        unsafe scratch = .allocate(capacity: Self.scratchSize)
        self.level = level
    }

    deinit {
        unsafe sluice_gzip_free(stream)
        unsafe scratch.deallocate()
    }

    /// Makes it new for another body.
    package func reset() {
        unsafe deflateReset(stream)
        owesFlush = false
    }

    /// Compresses `input` and appends what comes out. Returns `false` where zlib reports an error, which only a misuse
    /// could bring about.
    package func write(_ input: Span<UInt8>, _ flush: Flush, to output: inout ByteBuffer) -> Bool {
        let mode: Int32
        switch flush {
        case .none: mode = Z_NO_FLUSH
        case .sync: mode = Z_SYNC_FLUSH
        case .finish: mode = Z_FINISH
        }
        owesFlush = flush == .none && (owesFlush || !input.isEmpty)
        return unsafe input.withUnsafeBufferPointer { bytes in
            unsafe stream.pointee.next_in = unsafe UnsafeMutablePointer(mutating: bytes.baseAddress)
            unsafe stream.pointee.avail_in = UInt32(bytes.count)
            while true {
                unsafe stream.pointee.next_out = unsafe scratch
                unsafe stream.pointee.avail_out = UInt32(Self.scratchSize)
                let result = unsafe deflate(stream, mode)
                // Z_BUF_ERROR: nothing to do, as for a second flush in a row.
                guard result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR else { return false }
                let left = unsafe Int(stream.pointee.avail_out)
                let made = Self.scratchSize - left
                if made > 0 { unsafe output.append(Span(_unsafeStart: scratch, count: made)) }
                if left > 0 { return true }
            }
        }
    }
}
