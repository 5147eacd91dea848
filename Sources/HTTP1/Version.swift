import LinuxIO

/// What came of reading a version.
enum VersionScan {
    case version(HTTPVersion, next: Int)
    case stopped(Scan)
}

/// Reads `HTTP/1.0` or `HTTP/1.1` at `start` (RFC 9112 §2.3; case-sensitive). Other digits are another version and
/// get 505; anything else breaks `rule`.
func parseVersion(_ bytes: Span<UInt8>, from start: Int, end: Int, _ rule: Rule, limit: Rule) -> VersionScan {
    // Whole, eight bytes at once, first byte lowest.
    if start &+ 8 <= end {
        switch bytes.word(at: start) {
        case 0x31_2e_31_2f_50_54_54_48: return .version(.http11, next: start &+ 8)
        case 0x30_2e_31_2f_50_54_54_48: return .version(.http10, next: start &+ 8)
        default: break
        }
    }
    var i = start
    // "HTTP/", first byte lowest.
    var expected: UInt64 = 0x2f_50_54_54_48
    while expected != 0 {
        guard i < end else { return .stopped(.ranOut(at: end, of: bytes, limit: limit)) }
        guard bytes[i] == UInt8(truncatingIfNeeded: expected) else { return .stopped(.refuse(rule, at: i)) }
        expected >>= 8
        i += 1
    }
    guard i < end else { return .stopped(.ranOut(at: end, of: bytes, limit: limit)) }
    let major = bytes[i]
    guard isDigit(major) else { return .stopped(.refuse(rule, at: i)) }
    i += 1
    guard i < end else { return .stopped(.ranOut(at: end, of: bytes, limit: limit)) }
    guard bytes[i] == UInt8(ascii: ".") else { return .stopped(.refuse(rule, at: i)) }
    i += 1
    guard i < end else { return .stopped(.ranOut(at: end, of: bytes, limit: limit)) }
    let minor = bytes[i]
    guard isDigit(minor) else { return .stopped(.refuse(rule, at: i)) }
    guard major == 0x31, minor <= 0x31 else { return .stopped(.refuse(.unsupportedVersion, at: start)) }
    return .version(minor == 0x31 ? .http11 : .http10, next: i + 1)
}
