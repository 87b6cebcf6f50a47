// A thread's accumulators as an asm statement wants them: every one by name, which no template can write.
//
// EACH_n(X) is X(1) X(2) ... X(n - 1), for all n that wgmma can have here. The first accumulator, which no comma
// precedes, is written where the list is used. Each line adds what the one above lacks.
#pragma once

#define EACH_4(X) X(1) X(2) X(3)
#define EACH_8(X) EACH_4(X) X(4) X(5) X(6) X(7)
#define EACH_12(X) EACH_8(X) X(8) X(9) X(10) X(11)
#define EACH_16(X) EACH_12(X) X(12) X(13) X(14) X(15)
#define EACH_20(X) EACH_16(X) X(16) X(17) X(18) X(19)
#define EACH_24(X) EACH_20(X) X(20) X(21) X(22) X(23)
#define EACH_32(X) EACH_24(X) X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)
#define EACH_36(X) EACH_32(X) X(32) X(33) X(34) X(35)
#define EACH_40(X) EACH_36(X) X(36) X(37) X(38) X(39)
#define EACH_48(X) EACH_40(X) X(40) X(41) X(42) X(43) X(44) X(45) X(46) X(47)
#define EACH_52(X) EACH_48(X) X(48) X(49) X(50) X(51)
#define EACH_56(X) EACH_52(X) X(52) X(53) X(54) X(55)
#define EACH_60(X) EACH_56(X) X(56) X(57) X(58) X(59)
#define EACH_64(X) EACH_60(X) X(60) X(61) X(62) X(63)
#define EACH_68(X) EACH_64(X) X(64) X(65) X(66) X(67)
#define EACH_72(X) EACH_68(X) X(68) X(69) X(70) X(71)
#define EACH_76(X) EACH_72(X) X(72) X(73) X(74) X(75)
#define EACH_80(X) EACH_76(X) X(76) X(77) X(78) X(79)
#define EACH_88(X) EACH_80(X) X(80) X(81) X(82) X(83) X(84) X(85) X(86) X(87)
#define EACH_96(X) EACH_88(X) X(88) X(89) X(90) X(91) X(92) X(93) X(94) X(95)
#define EACH_104(X) EACH_96(X) X(96) X(97) X(98) X(99) X(100) X(101) X(102) X(103)
#define EACH_112(X) EACH_104(X) X(104) X(105) X(106) X(107) X(108) X(109) X(110) X(111)
#define EACH_120(X) EACH_112(X) X(112) X(113) X(114) X(115) X(116) X(117) X(118) X(119)
#define EACH_128(X) EACH_120(X) X(120) X(121) X(122) X(123) X(124) X(125) X(126) X(127)
