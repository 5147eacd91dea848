/// How large the head of a message may be. Zero (or less) means no limit; the 32-bit offsets of `HeaderField` then still
/// bound the request line and the field section to 512 MiB each.
package struct HeadLimits: Equatable, Sendable {
    /// Bytes of the request or status line without its line end; 414 beyond. RFC 9112 §3 recommends that at least 8,000
    /// be supported; longer ones are carried by no browser or cache.
    package var requestLineBytes: Int
    /// Bytes of all field lines with their line ends; 431 beyond. Room for 8 cookies of 4 KiB, the largest that browsers
    /// store. It also bounds what a connection may make us hold before anything is known about it.
    package var headerBytes: Int
    /// Field lines; 431 beyond. Browsers send about 20 and proxies add about 10; each one costs us 24 bytes.
    package var headerCount: Int

    package init(requestLineBytes: Int = 8 << 10, headerBytes: Int = 32 << 10, headerCount: Int = 100) {
        self.requestLineBytes = requestLineBytes
        self.headerBytes = headerBytes
        self.headerCount = headerCount
    }

    /// With this many bytes at hand, parsing always decides: what a buffer for heads must be able to hold. An empty line
    /// before the head, two line ends and one byte more than all limits.
    package var headBytesMax: Int { startLineEnd(from: 2) + fieldsEnd(from: 0) + 1 }

    private static var ceiling: Int { 1 << 29 }

    /// The first offset at which a start line that begins at `start` is too long, its line end included.
    func startLineEnd(from start: Int) -> Int { Self.bound(requestLineBytes, from: start) }

    /// The first offset at which a field section that begins at `start` is too long, its empty line included.
    func fieldsEnd(from start: Int) -> Int { Self.bound(headerBytes, from: start) }

    var fieldCountMax: Int { headerCount > 0 ? headerCount : .max }

    private static func bound(_ limit: Int, from start: Int) -> Int {
        start + (limit > 0 && limit < ceiling ? limit : ceiling) + 2
    }
}
