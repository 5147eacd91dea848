/// Tells when parsing a head again, with all bytes so far, can bring news: the first time, when a line has ended, and
/// when a kilobyte more has come, so that a limit that was passed is noticed. A client that sends its head byte by
/// byte then costs one parse a line and not one a byte.
package struct HeadProgress: Sendable {
    private var seen = 0
    private var parsed = 0
    private static var step: Int { 1024 }

    package init() {}

    /// Whether to parse `bytes`, which begin where they began before and hold at least what they held.
    package mutating func hasNews(in bytes: Span<UInt8>) -> Bool {
        var isNews = (seen == 0 && bytes.count > 0) || bytes.count - parsed >= Self.step
        var i = seen
        while !isNews, i < bytes.count {
            isNews = bytes[i] == ASCII.lineFeed
            i += 1
        }
        seen = bytes.count
        if isNews { parsed = bytes.count }
        return isNews
    }

    /// Begins anew, for the next head of the connection.
    package mutating func reset() { self = HeadProgress() }
}
