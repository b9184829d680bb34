// SPDX-License-Identifier: Apache-2.0
// Made by tests/base/make_facts.py; do not edit.
#ifndef QN_TESTS_BASE_FACTS_H
#define QN_TESTS_BASE_FACTS_H

#include <stdint.h>

// FNV-1a 64 of the UTF-8 of every code point, in order, surrogates left out.
static const uint64_t fact_utf8_fnv = 0x957cc0987e6013e5u;
static const uint64_t fact_utf8_bytes = 4382592;

// SipHash-1-3 of the bytes 0, 1, 2, ... (len of them), keyed by seed as base/hash.h says.
static const struct {
    uint64_t seed;
    uint32_t len;
    uint64_t hash;
} fact_siphash[] = {
    {0x0000000000000000u, 0, 0x1653806f2353e1d6u},
    {0x0000000000000000u, 1, 0x8d0be5549ad65dcdu},
    {0x0000000000000000u, 3, 0xcb3d4417639b4516u},
    {0x0000000000000000u, 7, 0xcdbc0410a35ffad1u},
    {0x0000000000000000u, 8, 0x89c6a2168c8b2506u},
    {0x0000000000000000u, 9, 0x24c821a21d696fa4u},
    {0x0000000000000000u, 15, 0xeb6809566bf0b708u},
    {0x0000000000000000u, 16, 0x3f431788373fc8f9u},
    {0x0000000000000000u, 63, 0x06c3d1c2e382fc5au},
    {0x0000000000000000u, 64, 0x1b9ff3ad36ef9a8du},
    {0x0000000000000000u, 255, 0x130aa96fbde038d7u},
    {0x0000000000000000u, 256, 0xf4ae198b23f980b4u},
    {0x0000000000000000u, 1000, 0xf3f1e85039378930u},
    {0x0000000000000001u, 0, 0xbee75de47bd091ecu},
    {0x0000000000000001u, 1, 0xcd169f413791dafeu},
    {0x0000000000000001u, 3, 0xd61a738e87824b62u},
    {0x0000000000000001u, 7, 0xebbdd6d77b20c9f1u},
    {0x0000000000000001u, 8, 0x9614ebcf6dfd4105u},
    {0x0000000000000001u, 9, 0x51edef35c0b633dcu},
    {0x0000000000000001u, 15, 0xafa38ff45de022ebu},
    {0x0000000000000001u, 16, 0x03127333f40d4675u},
    {0x0000000000000001u, 63, 0xb39db0bd6c08379du},
    {0x0000000000000001u, 64, 0x7d9ce9242a81234fu},
    {0x0000000000000001u, 255, 0xf5906f85abe4d6c4u},
    {0x0000000000000001u, 256, 0x47b2e4d8e9b9ff9cu},
    {0x0000000000000001u, 1000, 0xb5903153224665d2u},
    {0x0123456789abcdefu, 0, 0x9a3b57b173a4c571u},
    {0x0123456789abcdefu, 1, 0xb2a99df932916554u},
    {0x0123456789abcdefu, 3, 0xc0ee4daca872b6f9u},
    {0x0123456789abcdefu, 7, 0xeaa670272d833eb3u},
    {0x0123456789abcdefu, 8, 0x8989fc50172bbdc2u},
    {0x0123456789abcdefu, 9, 0x98a742444a21e9ebu},
    {0x0123456789abcdefu, 15, 0x5ea6788cebad0a8eu},
    {0x0123456789abcdefu, 16, 0xc20f95f1bbf8e1c7u},
    {0x0123456789abcdefu, 63, 0x07b7b16b44f7f550u},
    {0x0123456789abcdefu, 64, 0x9df1be17cc8d2361u},
    {0x0123456789abcdefu, 255, 0xef87d432d73e6c9fu},
    {0x0123456789abcdefu, 256, 0xcd402b6193aac625u},
    {0x0123456789abcdefu, 1000, 0x32727ee9d738b9b7u},
    {0xffffffffffffffffu, 0, 0x76ef4a09eb9f7ce1u},
    {0xffffffffffffffffu, 1, 0xcc4b19017856ad28u},
    {0xffffffffffffffffu, 3, 0x9ea6222a12dc3d4fu},
    {0xffffffffffffffffu, 7, 0x10fb780de987c4c4u},
    {0xffffffffffffffffu, 8, 0x025a384d995990d2u},
    {0xffffffffffffffffu, 9, 0xa661ee8a9fb11f71u},
    {0xffffffffffffffffu, 15, 0x1be3c0c0f8b9c7b9u},
    {0xffffffffffffffffu, 16, 0x90946ac9668dcd9cu},
    {0xffffffffffffffffu, 63, 0xa647e0dc5ff52d03u},
    {0xffffffffffffffffu, 64, 0xc437a5955a2c4eceu},
    {0xffffffffffffffffu, 255, 0x0592ea7c99c8534fu},
    {0xffffffffffffffffu, 256, 0xf1d26f0a6fe8f6fcu},
    {0xffffffffffffffffu, 1000, 0x282fe36290350b12u},
};

#endif
