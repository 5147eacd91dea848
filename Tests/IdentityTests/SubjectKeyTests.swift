import Primitives
import Testing

@testable import Identity

@Suite("Subjects")
struct SubjectKeyTests {
    @Test(
        "the text that stands in Redis keys",
        arguments: [
            ("203.0.113.7", "ip:203.0.113.7"), ("0.0.0.0", "ip:0.0.0.0"), ("255.255.255.255", "ip:255.255.255.255"),
            ("10.20.100.9", "ip:10.20.100.9"), ("::ffff:203.0.113.7", "ip:203.0.113.7"),
            ("2001:db8:1:2:3:4:5:6", "ip:2001:db8:1:2::/64"), ("2001:db8:1::5", "ip:2001:db8:1::/64"),
            ("2001:db8::1", "ip:2001:db8::/64"), ("2001::1", "ip:2001::/64"), ("::1", "ip:::/64"),
            ("2001:0:0:1::", "ip:2001:0:0:1::/64"), ("0:0:0:1::", "ip:0:0:0:1::/64"),
            ("fe80:0:1:0::9", "ip:fe80:0:1::/64"),
            ("a0b:c0:d00:e000::", "ip:a0b:c0:d00:e000::/64"),
        ])
    func text(_ text: String, _ expected: String) throws {
        #expect(SubjectKey(try address(text)).description == expected)
    }

    @Test("the text of an IPv6 subject is a block that holds the address, and says so in one way")
    func textIsBlock() throws {
        var random = SplitMix64(seed: 3)
        for _ in 0..<2_000 {
            // Many zero groups.
            let kept = random.next() & random.next()
            var high = random.next()
            for group in 0..<4 as Range<UInt64> where kept >> group & 1 == 0 {
                high &= ~(0xffff << (16 * group))
            }
            let address = IPAddress(v6High: high, low: random.next() | 1 << 63)
            let text = String(SubjectKey(address).description.dropFirst(3))
            let block = try #require(CIDR(text))
            #expect(block.contains(address) && block.prefixLength == 64)
        }
    }

    @Test("appending keeps what is there")
    func appends() throws {
        var bytes = Array("rate_limit:".utf8)
        SubjectKey(try address("1.2.3.4")).appendText(to: &bytes)
        #expect(String(decoding: bytes, as: UTF8.self) == "rate_limit:ip:1.2.3.4")
    }

    @Test("addresses of one subscriber are one subject, others are not")
    func subscribers() throws {
        let key = SubjectKey(try address("2001:db8:1:2::1"))
        #expect(key == SubjectKey(try address("2001:db8:1:2:ffff::")))
        #expect(key.hash(seed: 9) == SubjectKey(try address("2001:db8:1:2:ffff::")).hash(seed: 9))
        #expect(key != SubjectKey(try address("2001:db8:1:3::1")))
        #expect(SubjectKey(try address("::ffff:1.2.3.4")) == SubjectKey(try address("1.2.3.4")))
        #expect(SubjectKey(try address("1.2.3.4")) != SubjectKey(try address("::102:304")))
    }

    @Test("hashes of neighbours differ, and in all bits")
    func hashes() {
        var hashes: Set<UInt64> = []
        var ones = [Int](repeating: 0, count: 64)
        for number in 0..<4_096 as Range<UInt32> {
            let hash = SubjectKey(IPAddress(v4: 0x0a00_0000 + number)).hash(seed: 77)
            hashes.insert(hash)
            hashes.insert(SubjectKey(IPAddress(v6High: 0x2001_0db8_0000_0000 + UInt64(number), low: 1)).hash(seed: 77))
            for bit in 0..<64 where hash >> UInt64(bit) & 1 == 1 { ones[bit] += 1 }
        }
        #expect(hashes.count == 8_192)
        // Six standard deviations of 4,096 fair coins.
        for count in ones { #expect(abs(count - 2_048) < 192) }
    }

    @Test("another seed gives another hash")
    func seeds() throws {
        let key = SubjectKey(try address("203.0.113.7"))
        #expect(Set((0..<100).map { key.hash(seed: $0) }).count == 100)
        #expect(key.hash(seed: 5) == key.hash(seed: 5))
    }
}
