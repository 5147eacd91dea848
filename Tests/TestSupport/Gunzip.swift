// Reads gzip as far as it has come: what a client can show before the end.

import CZlib

@safe
package final class Gunzip {
    private let stream: UnsafeMutablePointer<z_stream>
    package private(set) var hasEnded = false

    package init() {
        unsafe stream = .allocate(capacity: 1)
        unsafe stream.initialize(to: z_stream())
        _ = unsafe inflateInit2_(stream, 15 + 16, zlibVersion(), Int32(MemoryLayout<z_stream>.size))
    }

    deinit {
        unsafe inflateEnd(stream)
        unsafe stream.deallocate()
    }

    /// What these bytes add; `nil` where they are no gzip.
    package func read(_ bytes: [UInt8]) -> [UInt8]? {
        var input = bytes
        var made: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 65_536)
        let isFine = unsafe input.withUnsafeMutableBufferPointer { input in
            unsafe stream.pointee.next_in = input.baseAddress
            unsafe stream.pointee.avail_in = UInt32(input.count)
            while true {
                let result = unsafe piece.withUnsafeMutableBufferPointer { output in
                    unsafe stream.pointee.next_out = output.baseAddress
                    unsafe stream.pointee.avail_out = UInt32(output.count)
                    return unsafe inflate(stream, Z_SYNC_FLUSH)
                }
                let left = unsafe Int(stream.pointee.avail_out)
                made += piece[..<(piece.count - left)]
                if result == Z_STREAM_END { hasEnded = true }
                guard result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR else { return false }
                if left > 0 || result == Z_STREAM_END { return true }
            }
        }
        return isFine ? made : nil
    }
}
