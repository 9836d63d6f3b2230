/*
 * scene.h -- tests of one file that differ in what they start with. The file has a `struct scene`
 * with the member `fn` and what can be chosen, and run_scene, which starts that, runs fn and ends
 * it.
 */
#ifndef TESTS_HARNESS_SCENE_H
#define TESTS_HARNESS_SCENE_H

/* In the list of tests: SCENE(test_rename, .unstarted = true). */
#define SCENE(test, ...)                                                                           \
    {                                                                                              \
        .name = #test, .test_func = run_scene, .initial_state = &(struct scene)                    \
        {                                                                                          \
            .fn = test, __VA_ARGS__                                                                \
        }                                                                                          \
    }
#endif
