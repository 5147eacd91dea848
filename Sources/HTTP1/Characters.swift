// The character sets of HTTP/1 (RFC 9110 §5.6.2, §5.5; RFC 9112 §3.2) as comparisons and one 128-bit mask: two
// constants in registers are as fast as a 256-entry table and touch no memory.

import LinuxIO

enum ASCII {
    static var tab: UInt8 { 0x09 }
    static var lineFeed: UInt8 { 0x0a }
    static var carriageReturn: UInt8 { 0x0d }
    static var space: UInt8 { 0x20 }
    static var asterisk: UInt8 { 0x2a }
    static var comma: UInt8 { 0x2c }
    static var slash: UInt8 { 0x2f }
    static var colon: UInt8 { 0x3a }
    static var semicolon: UInt8 { 0x3b }
    static var questionMark: UInt8 { 0x3f }
}

/// `tchar` of RFC 9110 §5.6.2: letters, digits and ``!#$%&'*+-.^_`|~``.
@inline(__always)
func isToken(_ byte: UInt8) -> Bool {
    let mask: UInt64 = byte & 0x40 == 0 ? 0x03ff_6cfa_0000_0000 : 0x57ff_ffff_c7ff_fffe
    return byte < 0x80 && (mask >> UInt64(byte & 63)) & 1 != 0
}

/// Whether all of these bytes are; true for none.
func isToken(_ bytes: Span<UInt8>, _ range: Range<Int>) -> Bool {
    for i in range where !isToken(bytes[i]) { return false }
    return true
}

/// What a field value may hold (RFC 9110 §5.5): tab, space, visible characters and opaque bytes from 0x80 on. NUL, CR,
/// LF and the other controls end or split lines in some parser downstream.
@inline(__always)
func isFieldValue(_ byte: UInt8) -> Bool {
    (byte >= 0x20 && byte != 0x7f) || byte == 0x09
}

/// Where the letters and hyphens from `start` on end: all of most field names. Eight bytes are judged at a time; where
/// fewer are left, none.
@inline(__always)
func nameLettersEnd(_ bytes: Span<UInt8>, from start: Int, to end: Int) -> Int {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let highs: UInt64 = 0x8080_8080_8080_8080
    var i = start
    while i &+ 8 <= end {
        let word = bytes.word(at: i)
        // Sums of seven bits carry into no neighbour: the highest bit of each tells `a` or above, and above `z`.
        let lower = (word | ones &* 0x20) & ~highs
        let letters = (lower &+ ones &* (0x80 - 0x61)) & ~(lower &+ ones &* (0x80 - 0x7b))
        let hyphens = ~((word & ~highs ^ ones &* 0x2d) &+ ones &* 0x7f)
        let found = (letters | hyphens) & ~word & highs
        if found != highs { return i &+ (~found & highs).trailingZeroBitCount &>> 3 }
        i &+= 8
    }
    return i
}

/// Where a stretch of such bytes ends, at or before `end`. Eight bytes are judged at a time: each that is below 0x20 or
/// 0x7f gets its highest bit set (Warren, "Hacker's Delight", 6-1), as does none before the first of them.
@inline(__always)
func fieldValueEnd(_ bytes: Span<UInt8>, from start: Int, to end: Int) -> Int {
    let ones: UInt64 = 0x0101_0101_0101_0101
    let highs: UInt64 = 0x8080_8080_8080_8080
    var i = start
    while i &+ 8 <= end {
        let word = bytes.word(at: i)
        let deleted = word ^ (ones &* 0x7f)
        let found = ((word &- ones &* 0x20) & ~word | (deleted &- ones) & ~deleted) & highs
        if found == 0 {
            i &+= 8
            continue
        }
        i &+= found.trailingZeroBitCount &>> 3
        if bytes[i] != ASCII.tab { return i }
        i &+= 1
    }
    while i < end, isFieldValue(bytes[i]) { i &+= 1 }
    return i
}

/// What a request target may hold: visible ASCII without `#`. RFC 3986 forbids a few more (`|`, `{`, `"`), but browsers
/// send them raw in queries and no parser splits a line there. A fragment never belongs on the wire (RFC 9112 §3.2),
/// and parsers disagree about where a path with one ends.
@inline(__always)
func isTarget(_ byte: UInt8) -> Bool {
    byte &- 0x21 < 0x5e && byte != 0x23
}

@inline(__always)
func isDigit(_ byte: UInt8) -> Bool { byte &- 0x30 < 10 }

@inline(__always)
func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

/// The value of a hexadecimal digit, or 255.
@inline(__always)
func hexadecimalValue(_ byte: UInt8) -> UInt8 {
    if isDigit(byte) { return byte &- 0x30 }
    let letter = (byte | 0x20) &- 0x61
    return letter < 6 ? letter &+ 10 : 255
}

/// Whether two stretches of tokens are the same but for the case of letters.
func equalsIgnoringCase(_ a: Span<UInt8>, _ rangeA: Range<Int>, _ b: Span<UInt8>, _ rangeB: Range<Int>) -> Bool {
    guard rangeA.count == rangeB.count else { return false }
    var j = rangeB.lowerBound
    for i in rangeA {
        guard lowercased(a[i]) == lowercased(b[j]) else { return false }
        j += 1
    }
    return true
}

@inline(__always)
private func lowercased(_ byte: UInt8) -> UInt8 {
    byte &- 0x41 < 26 ? byte | 0x20 : byte
}
